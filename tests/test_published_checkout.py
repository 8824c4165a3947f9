"""Both branches of FastSpeech2_HS as a clone without Git LFS has them: every published voice is found, and what it lacks is said."""
from pathlib import Path

import pytest
import yaml
from published_voice import make_config

from vaani_lib.choices import list_voices
from vaani_lib.indic_voices import IndicVoice, find_indic_voices, read_config
from vaani_lib.voice import Voice

GENDERS = ("female", "male")
ARYAN = "assamese bengali bodo english gujarati hindi manipuri marathi odia punjabi rajasthani urdu"
DRAVIDIAN = "kannada malayalam tamil telugu"
LATEST = ("assamese bengali bodo dogri gujarati hindi kannada konkani maithili malayalam manipuri marathi nepali odia punjabi "
          "rajasthani sanskrit tamil telugu")
ABSENT = {"bodo/male", "bengali_latest/female", "gujarati_latest/male", "konkani_latest/male"}
BORROWED = {"marathi": "hindi", "odia": "hindi"}  # whose vocoder serves who has none on New-Models
# folders of that branch that hold such files too and are none of its table's voices
BESIDE = ("kannada_latest/male/model_mono", "bilingual_models/kannada_female_bilingual/output_model")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:7e5cd37c\nsize 152129434\n"


def published(rate: int) -> dict[str, str]:
    """Each voice's folder of the branch, and its vocoder's."""
    if rate == 22050:
        languages = [(name, f"{family}/hifigan") for family, names in (("aryan", ARYAN), ("dravidian", DRAVIDIAN)) for name in names.split()]
    else:
        languages = [(f"{name}_latest", f"{BORROWED.get(name, name)}_latest") for name in LATEST.split()]
    voices = {f"{language}/{gender}": f"vocoder/{gender}/{vocoder}" for language, vocoder in languages for gender in GENDERS}
    return {f"{folder}/model": vocoder for folder, vocoder in voices.items() if folder not in ABSENT}


def clone(checkout: Path, rate: int) -> Path:
    """The branch's folders; of the files those that are looked at, the weights as pointers. Vocoders are not kept with Git LFS."""
    config = yaml.safe_dump(make_config(rate, thin=False), allow_unicode=True)
    for folder in (*published(rate), *(BESIDE if rate == 48000 else ())):
        (checkout / folder).mkdir(parents=True)
        (checkout / folder / "config.yaml").write_text(config, encoding="utf-8")
        (checkout / folder / "model.pth").write_text(POINTER)
    for folder in set(published(rate).values()):
        (checkout / folder).mkdir(parents=True)
        named = "configgenerator.json" if folder == "vocoder/male/bodo_latest" else "config.json"
        for name in (named, "generator"):
            (checkout / folder / name).touch()
    (checkout / "phone_dict").mkdir()
    return checkout


@pytest.mark.parametrize(("rate", "voices"), [(22050, 31), (48000, 35)])
def test_every_published_voice_is_found_with_its_vocoder(tmp_path, rate, voices):
    found = find_indic_voices(clone(tmp_path, rate))
    assert {str(v.folder.relative_to(tmp_path)): str(v.vocoder()[1].parent.relative_to(tmp_path)) for v in found} == published(rate)
    assert len(found) == voices
    for voice in found:
        language, gender, _ = voice.folder.relative_to(tmp_path).parts
        assert (voice.language, voice.place[1]) == (language.split("_")[0], gender)
        assert read_config(voice.folder / "config.yaml")["feats_extract_conf"]["fs"] == rate
    assert [choice.label for choice in list_voices(tmp_path)] == [v.name for v in found] and len({v.name for v in found}) == voices
    with pytest.raises(ValueError, match=f"There are {voices} voices in") as told:
        Voice.load(tmp_path)
    assert all(str(voice.folder) in str(told.value) for voice in found)


@pytest.mark.parametrize("rate", [22050, 48000])
def test_every_voice_whose_weights_are_not_fetched_says_how_to(tmp_path, rate):
    for choice in list_voices(clone(tmp_path, rate)):
        with pytest.raises(FileNotFoundError, match="is a Git LFS pointer of some 130 bytes, not the weights themselves") as told:
            choice.load()
        assert f"git lfs pull --include '*{choice.place.relative_to(tmp_path).as_posix()}/model.pth'" in str(told.value)


def test_a_language_a_speaker_and_a_voice_beside_the_table_by_their_own_folders(tmp_path):
    clone(tmp_path, 48000)
    assert [v.name for v in find_indic_voices(tmp_path / "hindi_latest")] == ["hindi latest female", "hindi latest male"]
    assert [v.name for v in find_indic_voices(tmp_path / "hindi_latest/male")] == ["hindi latest male"]
    (alone,) = find_indic_voices(tmp_path / BESIDE[0])
    assert alone == IndicVoice(tmp_path / BESIDE[0], tmp_path) and alone.language == "kannada"
    assert alone.vocoder()[1].parent == tmp_path / "vocoder/male/kannada_latest"
