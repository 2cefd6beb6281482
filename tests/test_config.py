"""The configuration: what is read, what is refused and how it is said, where things are, how datasets are added."""

import os
import re
import tomllib
from pathlib import Path

import pytest

from reprod import config as configuration
from reprod.config import places
from reprod.config.values import DaemonConfig, EnvironmentConfig, MlflowConfig, ScanConfig, WatchConfig
from reprod.errors import ConfigError, DatasetUnavailableError, NotFoundError, StateError, UsageError

EXAMPLE = Path(__file__).parent.parent / "config" / "reprod.toml"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An account of its own below tmp_path, and nothing of this machine's."""
    for variable in ("REPROD_SOCKET", "MLFLOW_TRACKING_URI", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("REPROD_CONFIG", str(tmp_path / "etc" / "reprod.toml"))
    monkeypatch.setenv("REPROD_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "etc" / "datasets.d").mkdir(parents=True)
    return tmp_path


def write(home: Path, text: str) -> Path:
    file = home / "etc" / "reprod.toml"
    file.write_text(text)
    return file


def write_dataset(home: Path, name: str, text: str) -> Path:
    file = home / "etc" / "datasets.d" / f"{name}.toml"
    file.write_text(text)
    return file


class TestExample:
    def test_every_key_is_documented_with_its_default(self, home: Path) -> None:
        """config/reprod.toml with its comments taken away is exactly the defaults, and names every key."""
        text = re.sub(r"(?m)^#(?=[a-z_]+ = )", "", EXAMPLE.read_text())
        write(home, text)
        loaded = configuration.load()
        assert loaded.mlflow == MlflowConfig()
        assert loaded.environment == EnvironmentConfig()
        assert loaded.watch == WatchConfig()
        assert loaded.scan == ScanConfig()
        tables = tomllib.loads(text)
        for section, kind in (
            ("mlflow", MlflowConfig),
            ("environment", EnvironmentConfig),
            ("watch", WatchConfig),
            ("scan", ScanConfig),
            ("daemon", DaemonConfig),
        ):
            assert set(tables[section]) == set(kind.__dataclass_fields__)

    def test_as_shipped_it_changes_nothing(self, home: Path) -> None:
        """The example can be copied into place as it is."""
        defaults = configuration.load()
        write(home, EXAMPLE.read_text())
        assert configuration.load() == defaults


class TestLoad:
    def test_nothing_there_means_defaults(self, home: Path) -> None:
        """Without any file the defaults hold, and the places are said."""
        loaded = configuration.load()
        assert loaded.mlflow == MlflowConfig()
        assert loaded.datasets == ()
        assert loaded.misconfigured == ()
        assert loaded.file == home / "etc" / "reprod.toml"
        assert loaded.folder == home / "etc" / "datasets.d"
        assert loaded.socket == home / "state" / "control.sock"

    def test_values_are_read(self, home: Path) -> None:
        """Each kind of value arrives with its type."""
        write(
            home, '[mlflow]\ntracking_uri = "http://h:5000"\npoll_seconds = 2\n[environment]\ninterpreters = ["~/v"]\n'
        )
        loaded = configuration.load()
        assert loaded.mlflow.tracking_uri == "http://h:5000"
        assert loaded.mlflow.poll_seconds == 2.0
        assert isinstance(loaded.mlflow.poll_seconds, float)
        assert loaded.environment.interpreters == (str(home / "v"),)

    def test_an_explicit_file_must_exist(self, home: Path) -> None:
        """--config with a typing error must not start a daemon with defaults."""
        with pytest.raises(ConfigError, match="does not exist"):
            configuration.load(str(home / "nowhere.toml"))

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (
                "[mlflow]\n\npoll_seconds = 0.1\n",
                r"reprod\.toml:3: \[mlflow\] poll_seconds = 0.1: expected seconds from",
            ),
            ("[mlflow]\npoll_seconds = true\n", r"poll_seconds = true: expected seconds, a number"),
            ('[mlflow]\npoll_seconds = "10"\n', r'poll_seconds = "10": expected'),
            ("[mlflow]\npoll_seconds = nan\n", r"poll_seconds = NaN: expected"),
            (
                "[mlflow]\nmax_inline_files = 1.5\n",
                r"max_inline_files = 1.5: expected a count of files, a whole number",
            ),
            ("[scan]\nworkers = 65\n", r"\[scan\] workers = 65: expected .* from 0 to 64"),
            ("[scan]\nworkers = -1\n", r"workers = -1"),
            (
                '[watch]\nbackend = "watchfile"\n',
                r'backend = "watchfile": expected "auto" or "inotify" or "watchfiles" or "poll"',
            ),
            ('[environment]\ninterpreters = "/v"\n', r"interpreters = \"/v\": expected a list"),
            ('[environment]\ninterpreters = ["v"]\n', r"expected an absolute path"),
            ('[mlflow]\npoll_second = "10"\n', r"unknown key 'poll_second'"),
            ("[mlfow]\n", r"reprod\.toml:1: unknown section or key 'mlfow'"),
            ("mlflow = 3\n", r"mlflow = 3: expected a section"),
            ("[mlflow\n", r"is not TOML: .*line 1"),
            ("x = " + "[" * 5000, r"is not TOML"),
        ],
    )
    def test_wrong_values_name_file_key_value_and_expectation(self, home: Path, text: str, expected: str) -> None:
        """Everything that is wrong says where, what it is and what was expected, with a hint."""
        write(home, text)
        with pytest.raises(ConfigError, match=expected) as caught:
            configuration.load()
        assert caught.value.hint
        assert str(home / "etc" / "reprod.toml") in caught.value.message

    def test_did_you_mean(self, home: Path) -> None:
        """A typing error in a key, a section or a word is answered with the nearest one."""
        for text, word in (
            ("[mlflow]\npol_seconds = 1\n", "poll_seconds"),
            ("[mlflo]\n", "mlflow"),
            ('[watch]\nbackend = "watchfile"\n', "watchfiles"),
        ):
            write(home, text)
            with pytest.raises(ConfigError) as caught:
                configuration.load()
            assert caught.value.hint == f"did you mean {word}?"

    def test_bytes_that_are_no_text(self, home: Path) -> None:
        """A file in another encoding is refused by name, not with a traceback."""
        (home / "etc" / "reprod.toml").write_bytes(b'x = "\xff"\n')
        with pytest.raises(ConfigError, match="not UTF-8"):
            configuration.load()

    @pytest.mark.timeout(10)
    def test_a_fifo_does_not_hang_the_start(self, home: Path) -> None:
        """Something that is not a regular file is refused at once."""
        os.mkfifo(home / "etc" / "reprod.toml")
        with pytest.raises(ConfigError, match="not a regular file"):
            configuration.load()


class TestTracking:
    @pytest.mark.parametrize(
        "uri", ["", "local", "http://127.0.0.1:5000", "https://u:p@h/x", "sqlite:////srv/mlflow.db"]
    )
    def test_accepted(self, home: Path, uri: str) -> None:
        """Servers, a database of one's own and the local server are taken as written."""
        write(home, f'[mlflow]\ntracking_uri = "{uri}"\n')
        assert configuration.load().mlflow.tracking_uri == uri

    @pytest.mark.parametrize("uri", ["file:/data/mlruns", "file:///data/mlruns", "./mlruns", "/data/mlruns"])
    def test_folders_are_refused_with_the_line_to_use(self, home: Path, uri: str) -> None:
        """A folder of files is refused with the command that serves it."""
        write(home, f'[mlflow]\ntracking_uri = "{uri}"\n')
        with pytest.raises(ConfigError) as caught:
            configuration.load()
        assert "mlflow server --backend-store-uri sqlite:///mlflow.db" in caught.value.hint

    @pytest.mark.parametrize("uri", ["http://", "postgresql://h/db", "databricks", "sqlite:///mlflow.db"])
    def test_others_are_refused(self, home: Path, uri: str) -> None:
        """What the daemon could not use is refused at the start, not at the first run."""
        write(home, f'[mlflow]\ntracking_uri = "{uri}"\n')
        with pytest.raises(ConfigError, match="tracking_uri"):
            configuration.load()

    def test_the_environment_variable_is_the_fall_back(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """MLFLOW_TRACKING_URI counts where the file says nothing; a relative sqlite path is MLflow's."""
        monkeypatch.chdir(home)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
        assert configuration.load().mlflow.tracking_uri == f"sqlite:///{home}/mlflow.db"
        assert configuration.load(tracking=False).mlflow.tracking_uri == ""
        write(home, '[mlflow]\ntracking_uri = "local"\n')
        assert configuration.load().mlflow.tracking_uri == "local"

    def test_a_bad_variable_is_named(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The message says that it came from the environment."""
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
        with pytest.raises(ConfigError, match=r"\$MLFLOW_TRACKING_URI"):
            configuration.load()

    def test_a_password_is_not_shown(self, home: Path) -> None:
        """A refused URI is shown without its secret."""
        write(home, '[mlflow]\ntracking_uri = "postgresql://me:hunter2@h/db"\n')
        with pytest.raises(ConfigError) as caught:
            configuration.load()
        assert "hunter2" not in caught.value.message + caught.value.hint


class TestDatasets:
    def test_one_bad_file_disables_one_dataset(self, home: Path) -> None:
        """A wrong file becomes an entry with the reason, the others stay."""
        write_dataset(home, "good", 'path = "/data/good/"\nalgorithms = ["md5"]\n')
        write_dataset(home, "bad", 'path = "/data/bad"\nincludes = ["*.csv"]\n')
        (home / "etc" / "datasets.d" / ".hidden.toml").write_text("rubbish")
        (home / "etc" / "datasets.d" / "note.txt").write_text("rubbish")
        loaded = configuration.load()
        (good,) = loaded.datasets
        assert good.path == "/data/good"
        assert good.algorithms == ("sha256", "md5")
        (bad,) = loaded.misconfigured
        assert bad.name == "bad"
        assert "bad.toml:2: unknown key 'includes'" in bad.message
        assert bad.hint == "did you mean include?"

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", "there is no path"),
            ('path = "data"', "expected an absolute path"),
            ("path = 3", "path = 3"),
            ('path = "/d"\ninclude = "*.csv"', "expected a list of patterns"),
            ('path = "/d"\ninclude = [1]', "non-empty string"),
            ('path = "/d"\nexclude = ["!"]', "gitignore"),
            ('path = "/d"\nalgorithms = ["sha265"]', "sha265"),
            ('path = "/d"\nsymlinks = "follow"', '"record" or "skip"'),
            ('path = "/d\\u0000"', "absolute path"),
        ],
    )
    def test_wrong_values(self, home: Path, text: str, expected: str) -> None:
        """Each wrong value of a dataset is named."""
        write_dataset(home, "x", text)
        loaded = configuration.load()
        assert loaded.datasets == ()
        assert expected in loaded.misconfigured[0].message
        assert loaded.misconfigured[0].hint

    def test_a_relative_path_is_answered_with_the_absolute_one(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The hint holds a path that can be copied; ~ is expanded instead of refused."""
        monkeypatch.chdir(home)
        write_dataset(home, "a", 'path = "data"')
        write_dataset(home, "b", 'path = "~/data"')
        loaded = configuration.load()
        assert f'"{home}/data"' in loaded.misconfigured[0].hint
        assert loaded.datasets[0].path == f"{home}/data"

    def test_a_name_that_is_none(self, home: Path) -> None:
        """A file name that cannot be a dataset's name is said, not skipped."""
        write_dataset(home, "my data", 'path = "/d"')
        assert configuration.load().misconfigured[0].name == "my data"

    def test_unreadable_entries(self, home: Path) -> None:
        """A folder, a dangling link and a FIFO in datasets.d are each one misconfigured dataset."""
        folder = home / "etc" / "datasets.d"
        (folder / "dir.toml").mkdir()
        (folder / "link.toml").symlink_to("nowhere")
        os.mkfifo(folder / "pipe.toml")
        assert [wrong.name for wrong in configuration.load().misconfigured] == ["dir", "link", "pipe"]

    def test_inside_state_is_refused_even_through_a_link(self, home: Path) -> None:
        """STATE, anything in it and a link to it cannot be a dataset; STATE inside a dataset can."""
        (home / "state").mkdir()
        (home / "link").symlink_to(home / "state")
        for name, path in (("a", "state"), ("b", "state/x"), ("c", "link")):
            write_dataset(home, name, f'path = "{home}/{path}"')
        write_dataset(home, "outer", f'path = "{home}"')
        write_dataset(home, "sibling", f'path = "{home}/state2"')
        loaded = configuration.load()
        assert [wrong.name for wrong in loaded.misconfigured] == ["a", "b", "c"]
        assert all("inside the state directory" in wrong.message for wrong in loaded.misconfigured)
        assert [dataset.name for dataset in loaded.datasets] == ["outer", "sibling"]

    def test_nesting_is_found(self, home: Path) -> None:
        """A dataset inside another is reported with the nearest outer one; a common prefix of names is no nesting."""
        for name, path in (("top", "/d"), ("mid", "/d/a"), ("deep", "/d/a/b"), ("near", "/dd"), ("twin", "/dd")):
            write_dataset(home, name, f'path = "{path}"')
        assert configuration.nested_in(configuration.load()) == [("deep", "mid"), ("mid", "top"), ("twin", "near")]


class TestAddAndRemove:
    def test_add_writes_a_file_that_loads(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A relative path is made absolute, the default exclude line is visible, and the result loads."""
        (home / "data").mkdir()
        monkeypatch.chdir(home)
        file = configuration.add_dataset(
            configuration.load(), "x", "data", include=['a"b\\c\x7f.csv'], exclude=["*.tmp"], algorithms=["md5"]
        )
        assert 'exclude = [".snapshot/", ".zfs/", ".nfs*", "lost+found/", "*.tmp"]' in file.read_text()
        (dataset,) = configuration.load().datasets
        assert dataset.path == str(home / "data")
        assert dataset.include == ('a"b\\c\x7f.csv',)
        assert dataset.algorithms == ("sha256", "md5")
        assert os.listdir(file.parent) == ["x.toml"]

    def test_add_makes_the_folder(self, home: Path) -> None:
        """The first dataset of an account needs no preparation."""
        (home / "etc" / "datasets.d").rmdir()
        (home / "etc").rmdir()
        (home / "data").mkdir()
        assert configuration.add_dataset(configuration.load(), "x", str(home / "data")).is_file()

    def test_taken(self, home: Path) -> None:
        """A taken name is refused and the file stays as it was, a broken one too."""
        (home / "data").mkdir()
        file = write_dataset(home, "x", "broken")
        with pytest.raises(UsageError, match="taken"):
            configuration.add_dataset(configuration.load(), "x", str(home / "data"))
        assert file.read_text() == "broken"

    def test_refused(self, home: Path) -> None:
        """Each refusal has its class, and none leaves a file."""
        (home / "data").mkdir()
        (home / "state").mkdir()
        os.mkfifo(home / "pipe")
        config = configuration.load()
        data = str(home / "data")
        with pytest.raises(UsageError, match="cannot be a dataset's name"):
            configuration.add_dataset(config, "../x", data)
        with pytest.raises(DatasetUnavailableError, match="does not exist"):
            configuration.add_dataset(config, "x", str(home / "nowhere"))
        with pytest.raises(UsageError, match="inside the state directory"):
            configuration.add_dataset(config, "x", str(home / "state"))
        with pytest.raises(UsageError, match="neither a folder nor"):
            configuration.add_dataset(config, "x", str(home / "pipe"))
        with pytest.raises(UsageError, match="sha0"):
            configuration.add_dataset(config, "x", data, algorithms=["sha0"])
        with pytest.raises(UsageError, match="not UTF-8"):
            configuration.add_dataset(config, "x", os.fsdecode(b"/data/\xff"))
        assert os.listdir(config.folder) == []

    def test_a_folder_that_cannot_be_written(self, home: Path) -> None:
        """Where the folder cannot exist the error says who may write; root ignores modes, so a file is in the way."""
        (home / "data").mkdir()
        (home / "etc" / "datasets.d").rmdir()
        config = configuration.load()
        (home / "etc" / "datasets.d").write_text("")
        with pytest.raises(StateError, match="cannot be written"):
            configuration.add_dataset(config, "x", str(home / "data"))

    def test_remove(self, home: Path) -> None:
        """A dataset is removed, a misconfigured one too; an unknown name is answered with the nearest."""
        for name in ("imagenet", "bad"):
            write_dataset(home, name, 'path = "/d"' if name == "imagenet" else "rubbish")
        config = configuration.load()
        with pytest.raises(NotFoundError) as caught:
            configuration.remove_dataset(config, "imagent")
        assert caught.value.hint == "did you mean imagenet?"
        assert not configuration.remove_dataset(config, "imagenet").exists()
        assert not configuration.remove_dataset(config, "bad").exists()


class TestPlaces:
    def test_a_user_has_xdg_places(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without variables a user has ~/.config and ~/.local/state; XDG variables move them, relative ones do not."""
        monkeypatch.setattr(places, "is_system_account", lambda: False)
        monkeypatch.delenv("REPROD_CONFIG")
        monkeypatch.delenv("REPROD_STATE_DIR")
        assert places.config_file() == home / ".config/reprod/reprod.toml"
        assert places.state_dir() == home / ".local/state/reprod"
        monkeypatch.setenv("XDG_CONFIG_HOME", "/x/config")
        monkeypatch.setenv("XDG_STATE_HOME", "relative")
        assert places.config_file() == Path("/x/config/reprod/reprod.toml")
        assert places.state_dir() == home / ".local/state/reprod"

    def test_a_state_without_a_registry_is_none_to_read_from(
        self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Trainings leave their environments in a state of the user's own: that does not hide the system's state."""
        monkeypatch.setattr(places, "is_system_account", lambda: False)
        monkeypatch.setattr(places, "SYSTEM_STATE", tmp_path)
        monkeypatch.delenv("REPROD_STATE_DIR")
        (places.state_dir() / "handover").mkdir(parents=True)
        assert places.known_state_dir() == tmp_path
        (places.state_dir() / "registry.sqlite").touch()
        assert places.known_state_dir() == home / ".local/state/reprod"

    def test_the_system_has_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Root and the service user share /etc/reprod and /var/lib/reprod."""
        monkeypatch.setattr(places, "is_system_account", lambda: True)
        monkeypatch.delenv("REPROD_CONFIG")
        monkeypatch.delenv("REPROD_STATE_DIR")
        assert places.config_file() == Path("/etc/reprod/reprod.toml")
        assert places.state_dir() == Path("/var/lib/reprod")
        assert places.config_file("/x/y.toml") == Path("/x/y.toml")

    def test_a_named_state_is_never_answered_by_another_daemon(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """REPROD_STATE_DIR or REPROD_SOCKET leaves one candidate; otherwise they come in the contract's order."""
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(home))
        assert places.socket_candidates(home / "state") == [home / "state" / "control.sock"]
        assert places.listen_path(home / "state") == home / "state" / "control.sock"
        monkeypatch.setenv("REPROD_SOCKET", "/s/x.sock")
        assert places.socket_candidates(home / "state") == [Path("/s/x.sock")]
        assert places.listen_path(home / "state") == Path("/s/x.sock")
        monkeypatch.delenv("REPROD_SOCKET")
        monkeypatch.delenv("REPROD_STATE_DIR")
        monkeypatch.setattr(places, "is_system_account", lambda: False)
        assert places.socket_candidates(home / "state") == [
            home / "reprod" / "control.sock",
            home / "state" / "control.sock",
            Path("/run/reprod/control.sock"),
        ]
        assert places.listen_path(home / "state") == home / "reprod" / "control.sock"

    def test_a_socket_path_that_is_too_long(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A path that no socket can have is refused with a shorter one as the hint; 107 bytes are allowed."""
        monkeypatch.setenv("REPROD_SOCKET", "/" + "x" * 106)
        assert len(str(configuration.load().socket)) == 107
        monkeypatch.setenv("REPROD_SOCKET", "/" + "x" * 107)
        with pytest.raises(ConfigError, match="108 bytes") as caught:
            configuration.load()
        assert "REPROD_SOCKET" in caught.value.hint
