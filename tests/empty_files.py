"""Files that are looked for and not into: their names alone count."""

from brats_utils.cases.layouts import find_cases

FOUR = ("flair", "t1", "t1gd", "t2")


def write_files(folder, *names):
    for name in names:
        path = folder / (name if ".nii" in name else f"{name}.nii.gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def find_scans(folder):
    """Ids and scans of all patients, labelled or not."""
    return {case.case_id: case.images for case in find_cases(folder, labelled=False)}
