"""A raw scan of the phantom as a DICOM series, with the words that a clinical scanner would write."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid

WORDS = {
    "FLAIR": {"SeriesDescription": "Ax T2 FLAIR", "EchoTime": 120, "RepetitionTime": 9000, "InversionTime": 2500},
    "T1w": {"SeriesDescription": "Ax T1 pre", "EchoTime": 10, "RepetitionTime": 550},
    "T1gd": {"SeriesDescription": "Ax T1 post", "EchoTime": 10, "RepetitionTime": 550, "ContrastBolusAgent": "Gadobutrol"},
    "T2w": {"SeriesDescription": "Ax T2 TSE", "EchoTime": 100, "RepetitionTime": 4500},
}  # fmt: skip
"""By the names of `labels.CHANNELS`; times in ms, of spin echoes at 1.5 T. Source: Westbrook, MRI in Practice."""


def write_series(image: sitk.Image, folder: Path, *, channel: str, seed: int) -> Path:
    """Write uint16 slices as one file each, `IM0001.dcm` from the lowest up; give the folder.

    Patient, study and frame of reference belong to the seed. All of it is invented.
    """
    folder.mkdir()
    values = sitk.GetArrayViewFromImage(image)
    common = _describe(image, channel, seed, largest=int(values.max()))
    direction = np.reshape(image.GetDirection(), (3, 3))
    for number, pixels in enumerate(values, start=1):
        position = np.array(image.GetOrigin()) + direction[:, 2] * image.GetSpacing()[2] * (number - 1)
        instance = Dataset(common)
        instance.SOPInstanceUID = _uid(seed, channel, str(number))
        instance.InstanceNumber = number
        instance.ImagePositionPatient = _decimals(position)
        instance.SliceLocation = f"{position @ direction[:, 2]:.4f}"
        instance.PixelData = pixels.astype("<u2").tobytes()
        instance.file_meta = FileMetaDataset()
        instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        instance.file_meta.MediaStorageSOPClassUID = MRImageStorage
        instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
        instance.save_as(folder / f"IM{number:04d}.dcm", enforce_file_format=True)
    return folder


def _describe(image: sitk.Image, channel: str, seed: int, *, largest: int) -> Dataset:
    """What all slices share."""
    direction = np.reshape(image.GetDirection(), (3, 3))
    columns, rows, _ = image.GetSize()
    common = Dataset()
    common.SpecificCharacterSet = "ISO_IR 192"
    common.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    common.SOPClassUID = MRImageStorage
    common.StudyDate = common.SeriesDate = "20000101"
    common.StudyTime = common.SeriesTime = f"10{10 * list(WORDS).index(channel):02d}00"
    common.AccessionNumber = common.ReferringPhysicianName = ""
    common.Modality, common.BodyPartExamined = "MR", "BRAIN"
    common.Manufacturer = "brats_utils phantom"
    common.StudyDescription = "Synthetic head, not a patient"
    common.PatientName, common.PatientID = f"Phantom^Seed {seed}", f"PHANTOM-{seed}"
    common.PatientBirthDate = common.PatientSex = ""
    common.ScanningSequence, common.SequenceVariant, common.ScanOptions = "SE", "SK", ""
    common.MRAcquisitionType = "2D"
    common.SliceThickness = common.SpacingBetweenSlices = f"{image.GetSpacing()[2]:.4f}"
    common.EchoTrainLength, common.MagneticFieldStrength, common.PatientPosition = 1, 1.5, "HFS"
    common.StudyInstanceUID, common.FrameOfReferenceUID = _uid(seed, "study"), _uid(seed, "frame")
    common.SeriesInstanceUID = _uid(seed, channel)
    common.StudyID, common.SeriesNumber = "1", list(WORDS).index(channel) + 1
    common.PositionReferenceIndicator = ""
    common.ImageOrientationPatient = _decimals([*direction[:, 0], *direction[:, 1]])
    common.SamplesPerPixel, common.PhotometricInterpretation = 1, "MONOCHROME2"
    common.Rows, common.Columns = rows, columns
    common.PixelSpacing = [f"{image.GetSpacing()[1]:.4f}", f"{image.GetSpacing()[0]:.4f}"]
    common.BitsAllocated, common.BitsStored, common.HighBit, common.PixelRepresentation = 16, 12, 11, 0
    common.WindowCenter, common.WindowWidth = largest // 2, max(largest, 1)
    for word, value in WORDS[channel].items():
        setattr(common, word, value)
    return common


def _decimals(numbers: np.ndarray | list[float]) -> list[str]:
    """At most 16 characters each, as DICOM's decimal strings have it."""
    return [f"{number:.9f}" for number in numbers]


def _uid(seed: int, *what: str) -> UID:
    """The same for the same scan, under the root of pydicom."""
    return generate_uid(entropy_srcs=["brats_utils phantom", str(seed), *what])
