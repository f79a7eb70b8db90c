"""The configuration: what the environment and the file say, and one line for whatever cannot be used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from fastchat.config import Config, Limits, example, load
from fastchat.errors import ConfigError


class LoadTest(SynchronousTestCase):
    def written(self, text: str) -> dict[str, str]:
        file = Path(self.mktemp())
        file.write_text(text)
        return {"FASTCHAT_HOME": "home", "FASTCHAT_CONFIG": str(file)}

    def refused(self, environ: dict[str, str]) -> str:
        error = self.assertRaises(ConfigError, load, environ)
        self.assertNotIn("\n", error.message)
        return str(error.message)

    def test_nothing_has_to_be_set(self) -> None:
        config = load({})
        self.assertEqual(config.home, Path.cwd() / "var")
        self.assertEqual((config.port, config.operations_port, config.service_port(5)), (7400, 7480, 7405))
        self.assertEqual((config.host, config.advertised_host), ("127.0.0.1", "127.0.0.1"))
        self.assertEqual((config.services, config.strategy), (5, "least-connections"))
        self.assertIsNone(config.database.dsn)
        self.assertEqual(config.limits, Limits())

    def test_the_environment_moves_the_home_and_the_ports(self) -> None:
        config = load({"FASTCHAT_HOME": "/srv/chat", "FASTCHAT_PORT": "9000"})
        self.assertEqual((config.home, config.port, config.service_port(1)), (Path("/srv/chat"), 9000, 9001))

    def test_port_0_takes_any_ports(self) -> None:
        config = load({"FASTCHAT_PORT": "0"})
        self.assertEqual((config.port, config.service_port(3), config.operations_port), (0, 0, 0))

    def test_the_file_sets_what_it_names(self) -> None:
        environ = self.written('port = 8000\nstrategy = "random"\n[limits]\nsweep_seconds = 2\n[database]\ndsn = "x"\n')
        config = load(environ)
        self.assertEqual((config.port, config.strategy, config.limits.sweep_seconds), (8000, "random", 2.0))
        self.assertEqual(config.database.dsn, "x")
        self.assertEqual(load({**environ, "FASTCHAT_PORT": "8100"}).port, 8100)

    def test_what_cannot_be_used_is_named(self) -> None:
        cases = {
            "colour = 1": ": unknown key colour",
            "[limits]\nbacklogg = 1": ": unknown key limits.backlogg",
            "[limits]\nbacklog = 0": ": limits.backlog: ",
            "[limits]\nbacklog = true": ": limits.backlog: ",
            "[limits]\noutbound_soft = 2048\noutbound_hard = 1024": ": limits: `outbound_soft` is above",
            "[limits]\nping_seconds = 80": ": limits: `ping_seconds` is not below",
            'strategy = "best"': ": strategy: ",
            "services = 80": ": services: ",
            "port = 65500": ": port: ",
            'home = "/srv"': ": unknown key home",
            'host = "0.0.0.0"': "set `public_host`",
            "[database]\nurl = 1": ": unknown key database.url",
            "port 1": ": is not TOML: ",
        }
        for text, expected in cases.items():
            environ = self.written(text)
            line = self.refused(environ)
            self.assertTrue(line.startswith(environ["FASTCHAT_CONFIG"]), line)
            self.assertIn(expected, line)

    def test_a_file_that_is_not_there_is_named(self) -> None:
        self.assertEqual(
            self.refused({"FASTCHAT_CONFIG": "none.toml"}), "none.toml: cannot be read: No such file or directory"
        )

    def test_a_port_that_is_none_is_named(self) -> None:
        for port in ("chat", "-1", "65500", "1e3", "99999999999"):
            self.assertTrue(self.refused({"FASTCHAT_PORT": port}).startswith("FASTCHAT_PORT: "))

    def test_everywhere_is_fine_with_a_public_name(self) -> None:
        config = load(self.written('host = "0.0.0.0"\npublic_host = "chat.example"'))
        self.assertEqual(config.advertised_host, "chat.example")


class ExampleTest(SynchronousTestCase):
    def test_it_names_every_key_and_can_be_loaded(self) -> None:
        lines = [line.removeprefix("#") for line in example().splitlines() if not line.startswith("# ")]
        file = Path(self.mktemp())
        file.write_text("\n".join(lines))
        config = load({"FASTCHAT_CONFIG": str(file), "FASTCHAT_HOME": "home"})
        keys = {line.partition(" = ")[0] for line in lines if " = " in line}
        tables = [field for field in msgspec.structs.fields(Config) if isinstance(field.default, msgspec.Struct)]
        expected = (
            {field.name for field in msgspec.structs.fields(Config)} - {"home"} - {table.name for table in tables}
        )
        for table in tables:
            expected |= {field.name for field in msgspec.structs.fields(type(table.default))}
        self.assertEqual(keys, expected)
        self.assertEqual(config.limits, Limits())

    def test_it_is_printed(self) -> None:
        ran = subprocess.run([sys.executable, "-m", "fastchat.config"], capture_output=True, text=True, check=True)
        self.assertEqual(ran.stdout, example())
