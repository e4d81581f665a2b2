"""What LMX expects of findings for ``lmx doctor``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from lmx_kernel.config import Settings
from lmx_kernel.interfaces import Finding
from lmx_kernel.kernel.boot import Booted, boot
from lmx_kernel.plugins.manager import Plugins
from lmx_kernel.testing.conformance.plugin import PluginConformance, check_active
from lmx_kernel.testing.conformance.router import BROKEN, GOOD
from lmx_kernel.testing.harness import write_config
from lmx_kernel.types import ModelCard

MOST_S = 30.0


class FindingsConformance(PluginConformance):
    """For a plugin with the hook ``lmx_findings``."""

    def bad_config(self, folder: Path) -> str | None:
        """Return TOML for a config under which a finding is bad; None if there is none.

        :param folder: an empty folder for the test's own files.
        """
        return None

    @pytest.fixture
    def bad(self, tmp_path: Path) -> Booted:
        """The plugin with the bad config."""
        home, folder = tmp_path / "bad-home", tmp_path / "bad-files"
        home.mkdir()
        folder.mkdir()
        if (config := self.bad_config(folder)) is None:
            pytest.skip("no config makes a finding bad")
        path = write_config(home, self.modules, config)
        return boot(path, environ={"LMX_HOME": str(home)})

    @pytest.mark.parametrize("models", [(), BROKEN, GOOD, (*BROKEN, *GOOD)], ids=len)
    def test_it_says_something_of_any_models(
        self, plugins: Plugins, settings: Settings, models: Sequence[ModelCard]
    ) -> None:
        start_s = time.perf_counter()
        findings = plugins.findings(settings, models)
        assert time.perf_counter() - start_s < MOST_S
        check_active(plugins, self.module)
        assert findings, "it should say that all is well, too"
        for finding in findings:
            check_finding(finding)

    def test_all_is_well_by_default(self, plugins: Plugins, settings: Settings) -> None:
        assert all(one.is_ok for one in plugins.findings(settings, GOOD))

    def test_no_finding_stands_there_twice(self, plugins: Plugins, settings: Settings) -> None:
        said = [(one.subject, one.text) for one in plugins.findings(settings, GOOD)]
        assert len(set(said)) == len(said)

    def test_what_is_wrong_is_found(self, bad: Booted) -> None:
        for models in ((), GOOD):
            findings = bad.plugins.findings(bad.settings, models)
            check_active(bad.plugins, self.module)
            for finding in findings:
                check_finding(finding)
            assert any(not one.is_ok for one in findings), "it finds nothing wrong"

    def test_it_looks_each_time(self, plugins: Plugins, settings: Settings, bad: Booted) -> None:
        """A finding is of now: nothing is kept from a call before."""
        assert all(one.is_ok for one in plugins.findings(settings, GOOD))
        assert not all(one.is_ok for one in bad.plugins.findings(bad.settings, GOOD))
        assert all(one.is_ok for one in plugins.findings(settings, GOOD))

    def test_it_changes_nothing(
        self, plugins: Plugins, settings: Settings, home: Path, folder: Path
    ) -> None:
        before = sorted([*home.rglob("*"), *folder.rglob("*")])
        models = list(GOOD)
        plugins.findings(settings, models)
        assert sorted([*home.rglob("*"), *folder.rglob("*")]) == before
        assert models == list(GOOD)


def check_finding(finding: Finding) -> None:
    """Check what `lmx doctor` prints a line of."""
    assert isinstance(finding, Finding), f"a {type(finding).__name__} is no Finding"
    assert isinstance(finding.is_ok, bool), "is_ok is True or False"
    for text in (finding.subject, finding.text):
        assert isinstance(text, str)
        assert text.strip(), "a finding has a subject and a text"
        assert text.isprintable(), f"a finding is one line: {text!r}"
