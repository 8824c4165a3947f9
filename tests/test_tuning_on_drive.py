"""voice_tuning in Colab with its voice or its exports on Drive, under the stand-in for google.colab."""
import shutil

from test_colab_notebooks import colab  # noqa: F401  the fixture

from vaani_lib.base import COMPACT


def test_a_voice_on_drive_is_there_in_a_new_runtime(colab):  # noqa: F811
    place = colab.drive.point / "MyDrive" / "voice"
    mount = colab.drive.mount

    def with_the_voice(*arguments, **named):
        mount(*arguments, **named)
        shutil.copytree(COMPACT, place, ignore=shutil.ignore_patterns("discriminator.*"))

    colab.drive.mount = with_the_voice
    colab.places['startswith("/content/drive")'] = f"startswith({str(colab.drive.point)!r})"
    colab.run("voice_tuning", until="panel = Panel(", VOICE=str(COMPACT), ALSO=str(place))
    panel = colab.names["panel"]
    assert any(str(choice.place) == str(place) for choice in panel.voices.choices.values())
    colab.drive.table.write_text("")  # the mount has gone
    panel.speak()
    panel.worker.wait()
    panel.exports = colab.drive.point / "MyDrive" / "spoken"
    panel.buttons["export"].click()
    assert "nothing is mounted at" in panel.stage.status.value and not panel.exports.exists()
