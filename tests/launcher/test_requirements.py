"""Requirements, installed in images of each kind from a directory of wheels."""

import zipfile

import pytest

from airflow_provider_mljobs.emulator.containers.images import Image
from airflow_provider_mljobs.jobs.payload.archive import Payload
from airflow_provider_mljobs.launcher.requirements import cause, use_system
from tests.launcher.test_launcher import FINISHED, STARTED

BOTH = frozenset({"python", "python3"})
MANAGED = {"is_externally_managed": True}
# Nothing answers there.
NO_INDEX = "http://127.0.0.1:9/simple"
FAILED = "not install ['mljobs-wheel']: the image's Python is externally managed (PEP 668)"


@pytest.fixture
def wheels(tmp_path):
    """Write a directory with a wheel, ``mljobs_wheel``, of version 1.0."""
    directory = tmp_path / "wheels"
    directory.mkdir()
    info = "mljobs_wheel-1.0.dist-info"
    with zipfile.ZipFile(directory / "mljobs_wheel-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("mljobs_wheel.py", "VERSION = '1.0'\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: mljobs-wheel\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return directory


@pytest.fixture
def install(contain, script, wheels):
    """Run a payload that requires a wheel, in an image; return exit code and output."""

    def install(image, requirement="mljobs-wheel", **env_vars):
        packed = Payload.of_source(
            script("import mljobs_wheel; print(mljobs_wheel.VERSION)"), None, pip_requirements=[requirement]
        )
        settings = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"}
        return contain(packed, image, volumes={"/wheels": wheels}, **(settings | env_vars))

    return install


@pytest.mark.parametrize(
    ("image", "installer"),
    [
        (Image(), "pip"),
        (Image(**MANAGED), "pip"),
        (Image(programs=BOTH | {"uv"}, has_pip_module=False), "uv"),
        (Image(programs=BOTH | {"uv"}, has_pip_module=False, **MANAGED), "uv"),
        (Image(programs=BOTH | {"pip"}, has_pip_module=False), "pip"),
        (Image(programs=BOTH | {"pip"}, has_pip_module=False, **MANAGED), "pip"),
    ],
    ids=["pip", "managed", "only uv", "only uv, managed", "only a pip program", "only a pip program, managed"],
)
def test_requirements_install_with_any_installer(install, image, installer):
    """Requirements install with the image's own pip, with uv, or with a pip of another Python, also under PEP 668."""
    code, text = install(image)

    assert 0 == code, text
    assert f"Installing mljobs-wheel with {installer}\n" in text
    assert f"{STARTED}1.0\n{FINISHED}" in text


def test_an_image_without_an_installer_is_reported(install):
    """Without pip and uv, the error names what the image lacks."""
    code, text = install(Image(programs=BOTH, has_pip_module=False))

    assert 1 == code
    assert "this image has no installer: neither a pip for its Python nor uv." in text
    assert "external_access_integrations" not in text


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (Image(**MANAGED), f"pip could {FAILED}"),
        (Image(programs=BOTH | {"uv"}, has_pip_module=False, **MANAGED), f"uv could {FAILED}"),
    ],
    ids=["pip", "uv"],
)
def test_a_protected_python_is_reported(install, image, error):
    """Where env_vars keep the protection of PEP 668, the error says so, and gives no advice about networks."""
    code, text = install(image, PIP_BREAK_SYSTEM_PACKAGES="0", UV_BREAK_SYSTEM_PACKAGES="false")

    assert 1 == code
    assert error in text
    assert "external_access_integrations" not in text


@pytest.mark.parametrize(
    ("requirement", "env_vars", "error"),
    [
        ("mljobs-wheel==2", {}, "doesn't have this version of a package"),
        ("mljobs-no-such-wheel", {}, "has no such package, or no file of it for Python 3."),
        (
            "mljobs-wheel",
            {"PIP_NO_INDEX": "0", "PIP_FIND_LINKS": "", "PIP_INDEX_URL": NO_INDEX, "PIP_RETRIES": "1"},
            "can't reach the package index. It reaches other hosts only through an external access integration",
        ),
    ],
    ids=["version", "package", "network"],
)
@pytest.mark.parametrize("image", [Image(), Image(programs=BOTH | {"uv"}, has_pip_module=False)], ids=["pip", "uv"])
def test_a_failure_has_its_real_cause(install, image, requirement, env_vars, error):
    """The error names the cause; only where the index can't be reached it advises an external access integration."""
    code, text = install(image, requirement, **env_vars, UV_HTTP_RETRIES="0")

    assert 1 == code
    assert error in text
    assert ("can't reach" in error) == ("external_access_integrations" in text)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        # pip 26.3
        ("ERROR: Invalid requirement: 'a b'", "a requirement is invalid"),
        ("WARNING: Retrying after connection broken by 'NameResolutionError('…')'", "the container can't reach the"),
        ("ERROR: Ignored the following versions that require a different python version: 1.0 Requires-Python >=3.99",
         "a package doesn't support this container's Python 3."),
        ("ERROR: a-1.0-cp399-none-any.whl is not a supported wheel on this platform.", "no wheel of a package"),
        ("WARNING: Retrying after SSLError([SSL: CERTIFICATE_VERIFY_FAILED]", "the container doesn't trust"),
        ("error: subprocess-exited-with-error", "a package has no wheel here and can't be built"),
        ("ERROR: ResolutionImpossible: for help visit https://pip.pypa.io", "the requirements contradict each other"),
        ("ERROR: 401 Client Error: Unauthorized for url: https://host/simple", "the package index refuses the login"),
        ("OSError: [Errno 28] No space left on device", "the container's disk is full"),
        # uv 0.13
        ("error: Failed to parse: `a b`", "a requirement is invalid"),
        ("  cause: invalid peer certificate: UnknownIssuer", "the container doesn't trust the certificate"),
        ("  cause: dns error", "the container can't reach the package index"),
        ("  cause: HTTP status client error (403 Forbidden) for url (https://host/)", "the package index refuses the"),
        ("  cause: Because the current Python version (3.11.7) does not satisfy Python>=3.99 and a==1.0 depends on it",
         "a package doesn't support this container's Python 3."),
        ("  cause: Because a==1.0 has no wheels with a matching Python implementation tag (e.g., `cp311`)",
         "no wheel of a package fits Python 3."),
        ("  cause: Because there is no version of a==2 and you require a==2", "the package index doesn't have this"),
        ("  cause: Because a was not found in the package registry", "the package index has no such package"),
        ("  cause: Because a>=2 depends on b<1, we can conclude that your requirements are unsatisfiable.",
         "the requirements contradict each other"),
    ],
)  # fmt: skip
def test_causes(message, expected):
    """Each message of pip and uv leads to its cause, and is quoted."""
    text = cause(["Looking in indexes: https://host/simple\n", f"{message}\n"], 1)

    assert text.startswith(expected)
    assert text.endswith(f"The message: {message.strip()}")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Collecting a", "the package index has no such package"),
        ("WARNING: Failed to establish a new connection: [Errno 111]", "the container can't reach the package index"),
        (
            "ERROR: Ignored the following versions that require a different python version: 1",
            "a package doesn't support",
        ),
    ],
)
def test_the_first_cause_counts(message, expected):
    """A package that pip can't find has an earlier cause, if its messages have one."""
    assert cause([message, "ERROR: No matching distribution found for a"], 1).startswith(expected)


def test_an_unknown_failure_has_no_advice():
    """A failure whose messages say nothing known is reported with its exit code, without a guess."""
    assert "it ended with exit code 2; its output is in the log above." == cause(["boom\n"], 2)


def test_uv_takes_the_settings_of_pip():
    """Pip's variables for the index hold for uv, unless uv's own are set."""
    environ = {"PIP_INDEX_URL": "https://host/simple", "PIP_CONSTRAINT": "a.txt", "UV_CONSTRAINT": "b.txt"}
    use_system(environ)

    assert {"UV_DEFAULT_INDEX": "https://host/simple", "UV_CONSTRAINT": "b.txt"}.items() <= environ.items()
    assert {"PIP_BREAK_SYSTEM_PACKAGES": "1", "UV_BREAK_SYSTEM_PACKAGES": "true"}.items() <= environ.items()
