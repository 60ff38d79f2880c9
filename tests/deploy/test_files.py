"""Container, compose and Kubernetes files: valid, and of commands, variables and routes there are.

No image is built here, and no cluster asked: schemas and the program's own command line are.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml
from compose_spec import ComposeSpecification, Service
from pydantic import BaseModel
from typer.main import get_command
from typer.testing import CliRunner

from qmtl.adapters import credentials
from qmtl.adapters.signing import KEY_FILE
from qmtl.entry import authfile, cli
from qmtl.entry.auth import PUBLIC
from qmtl.entry.wiring import PORT_DEFAULT

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
KUBERNETES: Final = "1.37"
FILES: Final = sorted((DEPLOY / "kubernetes").rglob("*.yaml"))
OBJECTS: Final = [
    (f"{path.stem} {each['kind']} {each['metadata']['name']}", each)
    for path in FILES
    for each in yaml.safe_load_all(path.read_text())
]
COMPOSE: Final = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
CONTAINERFILE: Final = (DEPLOY / "Containerfile").read_text()
NOBODY: Final = "10001:10001"
OURS: Final = {name: each for name, each in COMPOSE["services"].items() if "build" in each}
VARIABLE: Final = re.compile(r"QMTL_[A-Z_]+")


def templates() -> Iterator[tuple[str, dict[str, Any]]]:
    """The pod that each workload makes."""
    for name, each in OBJECTS:
        spec = each.get("spec", {})
        if each["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if "template" in spec:
            yield name, spec["template"]


PODS: Final = dict(templates())
COMMANDS: Final = [
    *((f"compose {name}", each["command"]) for name, each in OURS.items()),
    *(
        (f"kubernetes {name}", container["args"])
        for name, pod in PODS.items()
        for container in pod["spec"]["containers"]
    ),
]


@pytest.mark.parametrize("each", [pytest.param(each, id=name) for name, each in OBJECTS])
def test_an_object_is_of_its_schema(each: dict[str, Any]) -> None:
    kubernetes_validate.validate(each, KUBERNETES, strict=True)


def test_a_misspelt_key_is_found() -> None:
    broken = yaml.safe_load((DEPLOY / "kubernetes" / "loop.yaml").read_text().split("---")[0])
    broken["spec"]["replica"] = broken["spec"].pop("replicas")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


def unknown(part: Mapping[str, Any], model: type[BaseModel]) -> set[str]:
    """Keys that the specification has not; `x-` is anybody's."""
    fields = model.model_fields.items()
    known = {name for key, field in fields for name in (key, field.alias)}
    return {key for key in part if not key.startswith("x-")} - known


def test_the_compose_file_is_of_its_specification() -> None:
    found = ComposeSpecification.model_validate(COMPOSE)
    assert found.services is not None
    assert found.services.keys() == COMPOSE["services"].keys()
    assert unknown(COMPOSE, ComposeSpecification) == set()
    for name, service in COMPOSE["services"].items():
        assert unknown(service, Service) == set(), name


def test_a_misspelt_key_of_compose_is_found() -> None:
    assert unknown({"imagee": "x", "image": "y", "x-ours": 1}, Service) == {"imagee"}


# ---- What they start ---------------------------------------------------------------------------


def options(words: list[str]) -> tuple[set[str], str]:
    """The options that a command of the program has, and its name."""
    command: Any = get_command(cli.app)
    named = []
    for word in words:
        if word.startswith("-") or not hasattr(command, "commands"):
            break
        command = command.commands[word]
        named.append(word)
    return {opt for param in command.params for opt in param.opts}, " ".join(named)


@pytest.mark.parametrize("words", [pytest.param(words, id=name) for name, words in COMMANDS])
def test_a_command_is_one_of_the_programs(words: list[str]) -> None:
    known, named = options(words)
    assert named in ("serve", "world campaign-loop")
    asked = {word for word in words if word.startswith("--")}
    assert asked <= known, asked - known


def test_a_command_that_there_is_not_would_be_found() -> None:
    assert "--nonsense" not in options(["serve", "--nonsense"])[0]
    with pytest.raises(KeyError):
        options(["world", "campaign-lop"])


def test_every_variable_is_one_that_the_program_reads() -> None:
    help_ = cli.app.info.help or CliRunner().invoke(cli.app, ["--help"]).output
    texts = [CONTAINERFILE, (DEPLOY / "compose.yaml").read_text(), *(p.read_text() for p in FILES)]
    found = {name for text in texts for name in VARIABLE.findall(text)}
    assert {"QMTL_DATA", "QMTL_TOKEN_FILE", "QMTL_DATABASE_URL_FILE"} <= found
    assert found <= set(VARIABLE.findall(help_))


def test_the_key_is_where_the_program_looks_for_it() -> None:
    (world,) = PODS["world Deployment qmtl-world"]["spec"]["containers"]
    mounted = {mount["mountPath"] for mount in world["volumeMounts"]}
    assert f"/data/{KEY_FILE}" in mounted
    assert "QMTL_DATA=/data" in CONTAINERFILE


def test_the_auth_file_that_is_mounted_is_one(tmp_path: Path) -> None:
    (found,) = [each for _, each in OBJECTS if each["kind"] == "ConfigMap"]
    path = tmp_path / "auth.toml"
    path.write_text(found["data"]["auth.toml"])
    assert authfile.read(path).https


# ---- How they run ------------------------------------------------------------------------------


@pytest.mark.parametrize("pod", [pytest.param(pod, id=name) for name, pod in PODS.items()])
def test_a_pod_is_nobody_and_may_nothing(pod: dict[str, Any]) -> None:
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        held = container["securityContext"]
        assert held["allowPrivilegeEscalation"] is False
        assert held["readOnlyRootFilesystem"] is True
        assert held["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        assert ":" in container["image"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        held_here = {each["name"] for each in spec["volumes"]} | {"data"}
        assert mounted <= held_here


@pytest.mark.parametrize("pod", [pytest.param(pod, id=name) for name, pod in PODS.items()])
def test_probes_ask_what_needs_no_credential_where_it_listens(pod: dict[str, Any]) -> None:
    for container in pod["spec"]["containers"]:
        probes = [value for key, value in container.items() if key.endswith("Probe")]
        serves = container["args"][0] == "serve"
        assert len(probes) == (3 if serves else 0)
        for probe in probes:
            assert f"GET {probe['httpGet']['path']}" in PUBLIC
            assert probe["httpGet"]["port"] == container["ports"][0]["name"]
        if serves:
            port = container["ports"][0]["containerPort"]
            asked = container["args"]
            assert str(port) == asked[asked.index("--port") + 1] == str(PORT_DEFAULT)


def test_each_role_may_lose_one_at_a_time() -> None:
    budgets = {
        each["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]: each["spec"]
        for _, each in OBJECTS
        if each["kind"] == "PodDisruptionBudget"
    }
    assert budgets.keys() == {"world", "gateway", "loop"}
    assert all(budget["maxUnavailable"] == 1 for budget in budgets.values())


def test_services_budgets_and_networks_choose_pods_that_there_are() -> None:
    labels = [pod["metadata"]["labels"] for pod in PODS.values()]
    chosen = 0
    for _, each in OBJECTS:
        wanted = each.get("spec", {}).get("podSelector") or each.get("spec", {}).get("selector")
        if wanted is None:
            continue
        wanted = wanted.get("matchLabels", wanted)
        assert any(wanted.items() <= have.items() for have in labels), each["metadata"]
        chosen += 1
    assert chosen >= 9


@pytest.mark.parametrize("name", OURS)
def test_a_container_of_compose_is_nobody_and_may_nothing(name: str) -> None:
    service = OURS[name]
    assert service["user"] == NOBODY
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_nothing_of_compose_listens_to_the_outside() -> None:
    ports = [port for each in COMPOSE["services"].values() for port in each.get("ports", ())]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_no_secret_stands_in_a_file() -> None:
    """Each comes by a file of its own, and each that is needed is named."""
    named = COMPOSE["secrets"]
    assert all(each.keys() == {"file"} for each in named.values())
    used = {s for each in COMPOSE["services"].values() for s in each.get("secrets", ())}
    assert used == named.keys()
    assert not [each for _, each in OBJECTS if each["kind"] == "Secret"]
    texts = [CONTAINERFILE, (DEPLOY / "compose.yaml").read_text(), *(p.read_text() for p in FILES)]
    for name in credentials.SECRETS:
        assert not [t for t in texts if re.search(rf"{name}[:=]\s*\S*(//\S+:\S+@|qmtl_)", t)]
    ignored = (DEPLOY.parent / ".gitignore").read_text().splitlines()
    assert "/deploy/secrets/" in ignored


def test_the_image_is_of_pinned_packages_and_nobodys() -> None:
    lines = [line for line in CONTAINERFILE.splitlines() if not line.startswith("#")]
    assert "--require-hashes" in CONTAINERFILE
    last = max(n for n, line in enumerate(lines) if line.startswith("FROM "))
    final = lines[last:]
    assert f"USER {NOBODY}" in final
    assert 'ENTRYPOINT ["qmtl"]' in final
    assert f"EXPOSE {PORT_DEFAULT}" in final
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--" not in line]
    for name in (name for names in copied for name in names):
        assert (DEPLOY.parent / name).exists(), name
    allowed = (DEPLOY.parent / ".dockerignore").read_text().splitlines()
    for name in (name.split("/")[0] for names in copied for name in names):
        assert {f"!{name}", f"!{name}/*"} & set(allowed), name


def test_what_the_image_takes_of_the_pins_is_there() -> None:
    """The same choice as the line of awk in it."""
    pins = (DEPLOY.parent / "requirements" / "dev.txt").read_text()
    for name in ("psycopg", "psycopg-binary", "nats-py", "obstore", "setuptools"):
        assert re.search(rf"^{name}==", pins, re.MULTILINE), name
        assert name in CONTAINERFILE


# ---- Secrets in files --------------------------------------------------------------------------


def test_a_secret_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("qmtl_abc\n")
    environ = {"QMTL_TOKEN_FILE": str(path)}
    credentials.of_files(environ)
    assert environ["QMTL_TOKEN"] == "qmtl_abc"


@pytest.mark.parametrize(
    ("content", "more", "said"),
    [
        (None, {}, "No such file"),
        ("\n", {}, "is empty"),
        ("a", {"QMTL_TOKEN": "b"}, "both set"),
    ],
)
def test_a_secret_that_cannot_be_read_starts_nothing(
    tmp_path: Path, content: str | None, more: dict[str, str], said: str
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    environ = {"QMTL_TOKEN_FILE": str(path), **more}
    before = dict(environ)
    with pytest.raises(ValueError, match=said):
        credentials.of_files(environ)
    assert environ == before
    result = CliRunner().invoke(cli.app, ["world", "list"], env=environ)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
