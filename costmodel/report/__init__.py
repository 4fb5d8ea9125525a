"""Results for people and machines: tables, JSON, CSV, figures."""
