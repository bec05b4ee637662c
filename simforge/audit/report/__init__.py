"""The report of an audit: one HTML page with tables and charts."""
