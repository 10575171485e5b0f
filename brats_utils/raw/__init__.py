"""From the scanner: raw scans, as NIfTI or DICOM, to what the rest takes, and the labels back to the scans."""
