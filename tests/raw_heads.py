"""Heads for the tests of raw scans: a formula, so that any grid can sample it wherever the head lies."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

BRAIN_MM = (68.0, 84.0, 62.0)
HEAD_MM = (80.0, 98.0, 78.0)
"""Half axes of two ellipsoids; between them lie dark skull and bright scalp."""

GREYS = {  # brain, ventricle, tumour, scalp
    "FLAIR": (400, 150, 800, 600),
    "T1w": (600, 250, 450, 900),
    "T1gd": (620, 260, 1000, 950),
    "T2w": (350, 900, 700, 500),
}

CONTRAST = {"FLAIR": -0.15, "T1w": 0.2, "T1gd": 0.2, "T2w": -0.3}
"""Of white to grey matter, which alternate as in a three-dimensional chessboard."""

SITES_MM = {
    "ventricle": ((8, 0, 6), (10, 28, 12)),
    "tumour": ((-30, 22, 20), (16, 18, 14)),
    "pole": ((20, -50, -18), (14, 12, 16)),
}
"""Centre and half axes of what makes a head differ left from right, front from back, and above from below."""


def make_motion(rotation_deg=(0.0, 0.0, 0.0), shift_mm=(0.0, 0.0, 0.0)):
    """From points of the head that lies still to where they are in a scan."""
    return sitk.Euler3DTransform((0.0, 0.0, 0.0), *np.deg2rad(rotation_deg).tolist(), tuple(shift_mm))


def make_grid(spacing_mm=(5.0, 5.0, 5.0), extent_mm=(200.0, 232.0, 200.0)):
    """An empty grid around the origin, axial, LPS."""
    size = [round(extent / step) for extent, step in zip(extent_mm, spacing_mm, strict=True)]
    grid = sitk.Image(size, sitk.sitkFloat32)
    grid.SetSpacing(spacing_mm)
    grid.SetOrigin([-(n - 1) * step / 2 for n, step in zip(size, spacing_mm, strict=True)])
    return grid


def sample_head(channel, *, grid=None, motion=None, squeeze=1.0):
    """A head as a scanner sees it: float32, with noise. `squeeze` narrows the brain, for another patient."""
    grid = grid or make_grid()
    points = _points_of_head(grid, motion or make_motion())
    brain, ventricle, tumour, scalp = GREYS[channel]
    values = np.zeros(points.shape[:-1], dtype=np.float32)
    values[_inside(points, half=HEAD_MM)] = scalp
    values[_inside(points, half=[axis + 6 for axis in BRAIN_MM])] = 40
    narrow = points / np.array([squeeze, 1.0, 1.0])
    values[_inside(narrow, half=BRAIN_MM)] = brain
    x, y, z = np.moveaxis(narrow, -1, 0)
    folds = np.sin(x / 9) * np.sin(y / 11 + 1) * np.sin(z / 10 + 2)
    values[_inside(narrow, half=BRAIN_MM)] *= (1 + CONTRAST[channel] * np.tanh(4 * folds))[
        _inside(narrow, half=BRAIN_MM)
    ]
    for place, grey in (("ventricle", ventricle), ("tumour", tumour), ("pole", (brain + scalp) / 2)):
        centre, half = SITES_MM[place]
        values[_inside(narrow - np.array(centre), half=half)] = grey
    noise = np.random.default_rng(0).normal(scale=15, size=values.shape)
    image = sitk.GetImageFromArray(np.abs(values + noise).astype(np.float32))
    image.CopyInformation(grid)
    return image


def sample_mask(*, grid=None, motion=None, part="brain"):
    """The brain, or the tumour, of such a head: uint8."""
    grid = grid or make_grid()
    points = _points_of_head(grid, motion or make_motion())
    centre, half = SITES_MM.get(part, ((0, 0, 0), BRAIN_MM))
    mask = sitk.GetImageFromArray(_inside(points - np.array(centre), half=half).astype(np.uint8))
    mask.CopyInformation(grid)
    return mask


def find_ellipsoid(image):
    """In the place of `deepbet`, which takes seconds: the head without its outer 12 mm."""
    head = sitk.BinaryFillhole(sitk.BinaryMorphologicalClosing(sitk.OtsuThreshold(image, 0, 1), [2, 2, 2]))
    distance = sitk.SignedMaurerDistanceMap(head, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    return distance > 12


def prepare_quickly(patch):
    """Spare the tests what takes seconds: the networks, which `test_brain.py` has, and voxels of 1 mm."""
    patch.setattr("brats_utils.raw.brain.find_brain", find_ellipsoid)
    for module in ("grid", "preparation"):
        patch.setattr(f"brats_utils.raw.{module}.SPACING_MM", 2.0)


def write_nifti(image, path):
    """Write a scan; gives where."""
    sitk.WriteImage(sitk.Cast(image, sitk.sitkInt16), str(path))
    return path


def write_dicom(image, folder, *, syntax=ExplicitVRLittleEndian, leave_out=(), **tags):
    """Write a series, a file a slice, with a patient's name; gives the folder. `tags` are DICOM's words."""
    folder.mkdir(parents=True, exist_ok=True)
    series, study = generate_uid(), generate_uid()
    values = sitk.GetArrayFromImage(image).astype(np.int16)  # (slices, rows, columns)
    direction = np.reshape(image.GetDirection(), (3, 3))
    for index, plane in enumerate(values):
        if index in leave_out:
            continue
        file = Dataset()
        file.file_meta = FileMetaDataset()
        file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = MRImageStorage
        file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid()
        file.PatientName, file.PatientID, file.PatientBirthDate, file.PatientSex = (
            "Doe^Jane",
            "SECRET-17",
            "19700101",
            "F",
        )
        file.StudyInstanceUID, file.SeriesInstanceUID, file.FrameOfReferenceUID = study, series, study
        file.StudyDate, file.StudyTime, file.StudyID, file.AccessionNumber = "20260101", "120000", "1", ""
        file.ReferringPhysicianName, file.Manufacturer, file.PositionReferenceIndicator = "", "nobody", ""
        file.Modality, file.SeriesNumber, file.InstanceNumber = "MR", 1, index + 1
        file.ImagePositionPatient = [round(x, 6) for x in image.TransformIndexToPhysicalPoint((0, 0, index))]
        file.ImageOrientationPatient = [*direction[:, 0], *direction[:, 1]]
        file.PixelSpacing = [image.GetSpacing()[1], image.GetSpacing()[0]]
        file.SliceThickness = file.SpacingBetweenSlices = image.GetSpacing()[2]
        file.Rows, file.Columns, file.SamplesPerPixel, file.PhotometricInterpretation = *plane.shape, 1, "MONOCHROME2"
        file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 1
        file.PixelData = plane.tobytes()
        for name, value in tags.items():
            setattr(file, name, value)
        _save(file, folder / f"{100 - index:03d}.dcm", syntax)  # names against the order of the slices
    return folder


def write_enhanced(image, path, *, order=None, **tags):
    """Write a scan as one enhanced MR file, its frames in any order; gives the folder."""
    folder = write_dicom(image, path.parent / f".{path.stem}", **tags)
    slices = sorted(folder.iterdir(), reverse=True)  # the lowest first
    files = [pydicom.dcmread(slices[index]) for index in (order or range(len(slices)))]
    whole = Dataset()
    whole.update(files[0])
    whole.file_meta = files[0].file_meta
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    whole.NumberOfFrames = len(files)
    whole.PerFrameFunctionalGroupsSequence = [_describe_frame(file) for file in files]
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness = files[0].PixelSpacing, files[0].SliceThickness
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    whole.SharedFunctionalGroupsSequence = [shared]
    for word in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        del whole[word]
    whole.PixelData = b"".join(file.PixelData for file in files)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, whole, enforce_file_format=True)
    shutil.rmtree(folder)
    return path.parent


def _describe_frame(file):
    place, direction, frame = Dataset(), Dataset(), Dataset()
    place.ImagePositionPatient = file.ImagePositionPatient
    direction.ImageOrientationPatient = file.ImageOrientationPatient
    frame.PlanePositionSequence, frame.PlaneOrientationSequence = [place], [direction]
    return frame


def _save(file, path: Path, syntax):
    if syntax.is_compressed:
        file.compress(syntax, generate_instance_uid=False)
    elif not syntax.is_little_endian:
        file.PixelData = np.frombuffer(file.PixelData, "<i2").astype(">i2").tobytes()
        file.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(path, file, enforce_file_format=True, little_endian=False, implicit_vr=False)
        return
    pydicom.dcmwrite(path, file, enforce_file_format=True)


def _points_of_head(grid, motion):
    """Where in the head that lies still each voxel is: (Z, Y, X, 3) in mm."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.GetSize()), indexing="ij"), axis=-1)
    direction = np.reshape(grid.GetDirection(), (3, 3)) @ np.diag(grid.GetSpacing())
    points = index @ direction.T + np.array(grid.GetOrigin())
    back = motion.GetInverse()
    origin = np.array(back.TransformPoint((0.0, 0.0, 0.0)))
    axes = np.array([back.TransformPoint(axis) for axis in np.eye(3).tolist()]) - origin
    return (points @ axes + origin).transpose(2, 1, 0, 3)


def _inside(points, *, half):
    return ((points / np.array(half)) ** 2).sum(axis=-1) < 1
