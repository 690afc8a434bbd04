"""What a report shows, as plain data made from a stored run: no HTML, no drawing."""
