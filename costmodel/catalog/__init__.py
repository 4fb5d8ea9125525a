"""Names, ``config.json`` files and folders -> specs of models and devices."""
