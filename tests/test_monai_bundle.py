"""A MONAI bundle is a checkpoint: the zoo's, and those that `export` writes. None of its code is run."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from zoo_bundle import change, serve_zoo, write_bundle

from brats_utils.cases.case import Case
from brats_utils.cases.reader import read_case
from brats_utils.commands.export import export_bundle
from brats_utils.inference import build_predictor, predict_scan
from brats_utils.model import build_model
from brats_utils.saving import zoo
from brats_utils.saving.bundle_config import BundleError
from brats_utils.saving.checkpoints import load_checkpoint, name_weights
from brats_utils.saving.resume import load_start

THEIR_ORDER = [2, 1, 3, 0]
"""T1gd, T1w, T2w, FLAIR, where ours is FLAIR, T1w, T1gd, T2w."""

REFUSED = {
    "another network": (("inference", "network_def", "_target_"), "UNet", "found UNet, expected MONAI's SegResNet"),
    "a class that is not MONAI's": (("inference", "network_def", "_target_"), "os.SegResNet", "found os.SegResNet"),
    "a network that is a program": (("inference", "network_def"), "$print('ran')", "found .*print"),
    "another depth": (("inference", "network_def", "blocks_up"), [1, 1, 2], r"found {'blocks_up': \(1, 1, 2\)}, expected"),
    "another normalisation": (("inference", "preprocessing", "transforms", 1, "nonzero"), False, "found NormalizeIntensityd"),
    "a step that is not known": (("inference", "preprocessing", "transforms", 0, "_target_"), "os.system", "found os.system"),
    "another file": (("inference", "preprocessing", "transforms", 0, "keys"), "%/etc/a.json", "which reads another file"),
    "an odd window": (("inference", "inferer", "roi_size"), [60, 60, 60], "multiples of 8"),
    "no voxel size": (("metadata", "image_classes"), "T1c", "unknown size, expected cubes"),
    "voxels that are no cubes": (("metadata", "image_classes"), "1x1x5 mm", r"found voxels of \[1.0, 1.0, 5.0\]"),
    "an unknown channel": (("metadata", "network_data_format", "inputs", "image", "channel_def", "0"), "CT", "'CT'"),
    "an unknown region": (("metadata", "network_data_format", "outputs", "pred", "channel_def", "0"), "liver", "'liver'"),
    "labels without a meaning": (("inference", "postprocessing"), {}, "which integer stands for which tissue"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return write_bundle(tmp_path / "bundle")


def test_a_network_of_the_zoo_gives_the_logits_that_monai_gives(folder):
    parser = ConfigParser(ConfigParser.load_config_file(folder / "configs/inference.json"))
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(folder / "models/model.pt", weights_only=True))
    image = torch.randn(1, 4, 32, 32, 32)  # T1gd, T1w, T2w, FLAIR, axes to L, P, S
    (ours,) = build_predictor([load_checkpoint(folder)]).models
    order = [THEIR_ORDER.index(channel) for channel in range(4)]
    with torch.inference_mode():
        expected, found = network(image), ours.cpu()(image[:, order].flip(2, 3)).flip(2, 3)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_settings_are_those_of_the_configs_and_a_line_names_licence_and_data(folder, capsys):
    content = load_checkpoint(folder)
    expected = {
        "init_filters": 8, "dropout_prob": 0.2, "spacing_mm": 4.0, "inference_roi_size": [64, 64, 64],
        "label_schema": "brats2021", "axes": "LPS", "dataset_dir": "https://www.med.upenn.edu/sbia/brats2018/data.html",
        "seed": 0,
    }  # fmt: skip
    assert content.config == expected
    said = capsys.readouterr().out
    assert "MONAI team, licence Apache-2.0, trained on https://www.med.upenn.edu/sbia/brats2018" in said
    assert "authors' own validation: mean Dice 0.852" in said


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_understood_is_refused(folder, case, capfd):
    place, value, message = REFUSED[case]
    change(folder, *place, value=value)
    with pytest.raises(BundleError, match=message):
        load_checkpoint(folder)
    assert "ran" not in capfd.readouterr().out.split()


def test_code_in_a_bundle_is_not_run(folder, tmp_path):
    code = f"$open({str(tmp_path / 'ran')!r}, 'w')"
    change(folder, "inference", "imports", value=[code])
    change(folder, "inference", "device", value=code)
    change(folder, "inference", "preprocessing", "transforms", 0, "image_only", value=code)
    load_checkpoint(folder)
    assert not (tmp_path / "ran").exists()


def test_weights_that_are_more_than_tensors_are_refused(folder):
    torch.save({"a": Path}, folder / "models/model.pt")
    with pytest.raises(BundleError, match="Expected tensors alone"):
        load_checkpoint(folder)
    (folder / "models/model.pt").rename(folder / "models/model.ts")
    with pytest.raises(BundleError, match="TorchScript, a program, and is not run here"):
        load_checkpoint(folder)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"found no configs/inference.json, .* Give the folder that holds `configs`"):
        load_checkpoint(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("flips", [False, True])
def test_an_exported_bundle_gives_the_labels_of_its_checkpoint(checkpoint, phantom_dir, tmp_path, flips):
    content = load_checkpoint(checkpoint)
    back = load_checkpoint(export_bundle(content, tmp_path / "bundle"))
    scan = read_case(Case("a", (phantom_dir / "imagesTr/PHANTOM_001.nii.gz",)))
    one, other = (build_predictor([each], flips=flips) for each in (content, back))
    assert one.roi_size == other.roi_size
    assert one.schema == other.schema
    first, second = predict_scan(one, scan), predict_scan(replace(other, precision=one.precision), scan)
    assert len(first.labels.unique()) > 1, "nothing predicted, so nothing compared"
    assert torch.equal(first.labels, second.labels)
    assert (back.config["label_schema"], back.mean_dice) == ("msd", content.mean_dice)


def test_the_word_monai_downloads_verifies_and_keeps_the_bundle(tmp_path, monkeypatch, capsys, caplog):
    with serve_zoo(monkeypatch, tmp_path) as server:
        first, second = (load_checkpoint(name_weights("monai").resolve()) for _ in range(2))
    assert len(server.asked) == 1
    assert first.config == second.config
    assert (tmp_path / "torch/hub/bundle" / zoo.NAME / "models/model.pt").is_file()
    assert [path.name for path in (tmp_path / "torch/hub/bundle").iterdir()] == [zoo.NAME]
    assert "Downloading MONAI's brats_mri_segmentation" in capsys.readouterr().out
    assert not caplog.text, "MONAI's log names folders of the machine"


def test_without_a_network_the_file_is_put_there_by_hand(tmp_path, monkeypatch):
    with serve_zoo(monkeypatch, tmp_path):
        pass
    with pytest.raises(
        zoo.ZooError, match=r"could not be had .* put it at .*_v0\.5\.2\.zip, and run this again"
    ) as error:
        load_checkpoint(name_weights("monai"))
    place = Path(str(error.value).partition("put it at ")[2].partition(", and run")[0])
    assert list(place.parent.iterdir()) == []
    (tmp_path / "served/bundle.zip").rename(place)
    assert load_checkpoint(name_weights("monai")).config["spacing_mm"] == 4.0


def test_a_download_with_another_checksum_is_discarded(tmp_path, monkeypatch):
    with serve_zoo(monkeypatch, tmp_path):
        monkeypatch.setattr(zoo, "ARCHIVE_SHA1", 40 * "0")
        with pytest.raises(zoo.ZooError, match="not the file that the zoo names, expected SHA-1 0000"):
            load_checkpoint(name_weights("monai"))
    assert list((tmp_path / "torch/hub/bundle").iterdir()) == []


def test_other_weights_under_the_name_of_the_zoo_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    write_bundle(name_weights("monai"))
    with pytest.raises(zoo.ZooError, match="found other weights than the zoo names, expected MD5 870e"):
        load_checkpoint(name_weights("monai"))


def test_a_training_starts_from_the_zoo_with_its_settings(tmp_path, monkeypatch, capsys):
    with serve_zoo(monkeypatch, tmp_path, spacing_mm=1.0):
        model = build_model(init_filters=8, dropout_prob=0.0)
        load_start(model, "monai", init_filters=8, spacing_mm=1.0)
    expected = load_checkpoint(name_weights("monai")).model
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert "Weights start from monai: validation mean Dice 0.852" in capsys.readouterr().out
