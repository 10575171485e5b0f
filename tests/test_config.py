import pytest

from brats_utils.config import FINE_TUNING, PRESETS, ConfigError, load_config

CLASSIC = {  # the functional specification's list, to the letter
    "seed": 0,
    "roi_size": (224, 224, 144),
    "batch_size": 1,
    "num_workers": 4,
    "max_train_images_visualized": 20,
    "max_val_images_visualized": 20,
    "dice_loss_smoothen_numerator": 0,
    "dice_loss_smoothen_denominator": 1e-5,
    "dice_loss_squared_prediction": True,
    "dice_loss_target_onehot": False,
    "dice_loss_apply_sigmoid": True,
    "initial_learning_rate": 1e-4,
    "weight_decay": 1e-5,
    "max_train_epochs": 50,
    "validation_intervals": 1,
    "inference_roi_size": (128, 128, 64),
    "max_prediction_images_visualized": 20,
    "appearance": "classic",  # "random intensity scale .1 and shift .1"
}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid_and_survives_json(preset):
    config = load_config(preset)
    assert type(config).model_validate_json(config.model_dump_json()) == config


def test_classic_preset_has_the_classic_values():
    values = load_config("classic").model_dump()
    assert {key: values[key] for key in CLASSIC} == CLASSIC


def test_only_the_classic_preset_changes_grey_values_the_classic_way():
    assert {preset for preset in PRESETS if load_config(preset).appearance == "classic"} == {"classic"}


def test_unknown_setting_is_refused_and_the_likely_one_named():
    with pytest.raises(ConfigError, match=r"learning_rate: unknown setting\. Did you mean initial_learning_rate"):
        load_config("smoke", {"learning_rate": 1e-3})


def test_unknown_preset_is_refused():
    with pytest.raises(ConfigError, match="found 'lapotp', expected one of smoke"):
        load_config("lapotp")


def test_number_that_yaml_left_as_text_is_taken():
    assert load_config("smoke", {"initial_learning_rate": "1e-4"}).initial_learning_rate == 1e-4


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("seed", -1),
        ("roi_size", [60, 64, 64]),
        ("batch_size", 0),
        ("initial_learning_rate", "fast"),
        ("spacing_mm", 0),
        ("label_schema", "brats1999"),
        ("appearance", "weak"),
        ("init_filters", 12),
        ("dice_loss_target_onehot", True),
        ("dice_loss_apply_sigmoid", False),
        ("dice_loss_smoothen_denominator", 0),
    ],
)
def test_impossible_value_is_refused_by_name(setting, value):
    with pytest.raises(ConfigError, match=setting):
        load_config("smoke", {setting: value})


def test_phantom_folder_tells_what_it_was_made_with():
    assert load_config("smoke", {"seed": 3, "phantom_cases": 9}).dataset_dir == "data/phantom-4.0mm-9cases-seed3"


def test_a_folder_of_ones_own_is_left_alone():
    assert load_config("smoke", data="my/scans").dataset_dir == "my/scans"


def test_trained_weights_to_start_from_bring_a_shorter_and_gentler_training_unless_told_otherwise():
    for config in (load_config("laptop", init="pretrained"), load_config("laptop", {"init": "pretrained"})):
        assert config.init == "pretrained"
        assert {name: getattr(config, name) for name in FINE_TUNING} == FINE_TUNING
    config = load_config("laptop", {"max_train_epochs": "7"}, init="a.pt")
    assert (config.max_train_epochs, config.initial_learning_rate) == (7, FINE_TUNING["initial_learning_rate"])
    assert load_config("laptop").initial_learning_rate == PRESETS["laptop"]["initial_learning_rate"]
