"""The report: one HTML file that answers who wore a mask, when and where, how sure that is, and what was not seen. Also as text and JSON."""
