"""Print how many tests the runs behind some JUnit files had: "N passed, N failed, N skipped"."""

import sys
from collections import Counter
from xml.etree import ElementTree

found: Counter[str] = Counter()
for path in sys.argv[1:]:
    for suite in ElementTree.parse(path).getroot().iter("testsuite"):
        found.update({name: int(suite.get(name, 0)) for name in ("tests", "skipped")})
        found["failed"] += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
if not found["tests"]:
    sys.exit("no test was run")
passed = found["tests"] - found["failed"] - found["skipped"]
print(f"{passed} passed, {found['failed']} failed, {found['skipped']} skipped")
