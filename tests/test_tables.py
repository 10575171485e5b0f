import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from wandb_log import read_artifacts, read_records, run_folder

from brats_utils.labels import REGIONS
from brats_utils.report.page import ReportCase
from brats_utils.report.slices import upright_slice, window_volume
from brats_utils.tables import (
    DATA_TABLE,
    PREDICTION_TABLE,
    build_confusion_table,
    build_data_table,
    build_masks,
    build_prediction_table,
    build_slice_image,
    choose_stride,
)
from brats_utils.tracking import finish_run, start_run


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    truth, prediction = torch.zeros(2, 3, 12, 10, 9, dtype=torch.bool)
    truth[1, 2:8, 2:8, 3:6] = truth[0, 3:6, 3:6, 3:5] = truth[2, 4, 4, 4] = True
    prediction[1, 2:8, 2:7, 4:7] = True
    return ReportCase("three", torch.randn(4, 12, 10, 9, generator=generator), truth, prediction, (1.0, 1.0, 1.0))


def log_and_read(tmp_path, name, table):
    """Log a table offline; return its columns, its rows, and where the artifact's files lie."""
    run = start_run(job_type="dataset", mode="offline", output_dir=tmp_path, config={})
    run.log({name: table})
    finish_run(run)
    (artifact,) = read_artifacts(read_records(run_folder(tmp_path)))
    files = {entry.path: entry.local_path for entry in artifact.manifest.contents}
    content = json.loads(Path(files[f"{name}.table.json"]).read_text())
    return content["columns"], content["data"], files


def test_data_table_has_the_known_columns_and_a_row_a_tumour_slice(tmp_path, case):
    columns, rows, _ = log_and_read(tmp_path, DATA_TABLE, build_data_table([("val", 3, case)], margin=1))
    assert columns == ["Split", "Data Index", "Slice Index"] + [f"Image-Channel-{channel}" for channel in range(4)]
    assert [row[:3] for row in rows] == [["val", 3, slice_idx] for slice_idx in range(2, 7)]


def test_prediction_table_has_a_column_for_each_region_and_channel(tmp_path, case):
    table = build_prediction_table([("val", 3, case)], margin=0, stride=2)
    columns, rows, _ = log_and_read(tmp_path, PREDICTION_TABLE, table)
    assert columns[3:5] == ["Image-Channel-0/Tumor-Core", "Image-Channel-1/Tumor-Core"]
    assert columns[-1] == "Image-Channel-3/Enhancing-Tumor"
    assert len(columns) == 3 + 12
    assert [row[2] for row in rows] == [3, 5]


def test_cells_stand_under_their_own_header(case):
    table = build_prediction_table([("val", 3, case)], margin=0)
    pictures = upright_slice(window_volume(case.image), 3)
    for header, cell in zip(table.columns[3:], table.data[0][3:], strict=True):
        channel, region = header.removeprefix("Image-Channel-").split("/")
        assert np.array_equal(np.asarray(cell.image), pictures[int(channel)])
        assert set(cell._masks) == {f"ground-truth/{region}", f"prediction/{region}"}


def test_pixels_under_a_mask_are_the_tumours(tmp_path, case):
    _, rows, files = log_and_read(tmp_path, DATA_TABLE, build_data_table([("val", 3, case)], margin=0))
    masks = rows[1][3]["masks"]
    assert set(masks) == {f"ground-truth/{region.title}" for region in REGIONS}
    for label, region in enumerate(REGIONS, start=1):
        stored = np.asarray(Image.open(files[masks[f"ground-truth/{region.title}"]["path"]]))
        assert np.array_equal(stored == label, upright_slice(case.truth[label - 1].numpy(), 4))
        assert set(np.unique(stored)) <= {0, label}


def test_pictures_use_the_whole_grey_range(tmp_path, case):
    _, rows, files = log_and_read(tmp_path, DATA_TABLE, build_data_table([("val", 3, case)], margin=9))
    grey = np.stack([np.asarray(Image.open(files[row[3]["path"]])) for row in rows])
    assert grey.dtype == np.uint8
    assert (grey.min(), grey.max()) == (0, 255)


def test_the_channels_of_a_slice_share_their_masks(case):
    row = build_data_table([("val", 3, case)], margin=0).data[0]
    assert all(row[3]._masks[name] is row[6]._masks[name] for name in row[3]._masks)


def test_the_regions_of_a_channel_share_their_picture(tmp_path, case):
    _, rows, _ = log_and_read(tmp_path, PREDICTION_TABLE, build_prediction_table([("val", 3, case)], margin=0))
    assert rows[0][3]["path"] == rows[0][7]["path"] == rows[0][11]["path"]
    assert len({cell["path"] for cell in rows[0][3:]}) == 4


def test_slices_are_said_aloud(case, capsys):
    build_data_table([("val", 3, case)], margin=1, stride=3)
    assert "Slices: tumour ±1, one in 3." in capsys.readouterr().out


@pytest.mark.parametrize(("spacing_mm", "stride"), [(1.0, 6), (2.0, 3), (4.0, 2), (8.0, 1)])
def test_pictures_are_about_six_millimetres_apart(spacing_mm, stride):
    assert choose_stride(spacing_mm) == stride


def test_confusion_counts_true_positives_false_negatives_and_false_positives():
    prediction, truth = torch.zeros(2, 3, 2, 2, 1, dtype=torch.bool)
    truth[1, 0, :, 0] = prediction[1, :, 0, 0] = True
    table = build_confusion_table([(prediction, truth), (prediction, truth)])
    assert table.data[1] == ["Whole-Tumor", 2, 2, 2, 0.5, 0.5]
    assert table.data[0] == ["Tumor-Core", 0, 0, 0, None, None]


def test_floats_are_refused_because_wandb_would_cut_them_off(case):
    masks = build_masks(upright_slice(case.truth.numpy(), 4), "ground-truth")
    with pytest.raises(ValueError, match="Found a slice of float32, expected uint8"):
        build_slice_image(np.zeros((10, 12), dtype=np.float32), masks)


def test_case_without_prediction_is_refused(case):
    with pytest.raises(ValueError, match="found no prediction"):
        build_prediction_table([("val", 0, replace(case, prediction=None))])
