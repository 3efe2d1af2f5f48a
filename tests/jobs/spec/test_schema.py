import pytest

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.spec.specification import containers, parse, validate

EVERYTHING = """
spec:
  containers:
  - name: main
    image: /db/schema/repository/image:1.0
    command: [python, main.py]
    args: ["--depth", "3"]
    env: {TEXT: a, WHOLE: 3, SHARE: 0.5, FLAG: true, VERSION: 1.10, DAY: 2026-01-01, "a.b-c": ""}
    readinessProbe: {port: 8080, path: /ready, periodSeconds: 5, failureThreshold: 3}
    livenessProbe: {port: 8080, path: /live}
    volumeMounts:
    - {name: scratch, mountPath: /scratch}
    - {name: scratch, mountPath: /scratch/again}
    - {name: cache, mountPath: /dev/shm}
    resources:
      requests: {memory: 0.5Gi, cpu: 0.5, nvidia.com/gpu: 1}
      limits: {memory: 2G, cpu: 500m, nvidia.com/gpu: "1"}
    mountSessionToken: true
    sessionTokenConfig: {path: /app/token.dir, permission: 0600, mountConnectionConfig: true}
    secrets:
    - {snowflakeSecret: db.schema.secret, envVarName: PASSWORD, secretKeyRef: password}
    - {snowflakeSecret: {objectName: db.schema.secret}, directoryPath: /secrets}
    - {snowflakeSecret: {objectReference: feed}, envVarName: FEED, secretKeyRef: access_token}
  - {name: log-agent, image: "registry/agent@sha256:0a1b"}
  endpoints:
  - {name: api, port: 8000, public: true, protocol: HTTP, corsSettings: {Access-Control-Allow-Origin: ["https://a.b"]}}
  - {name: workers, portRange: 12031-13000, protocol: TCP}
  volumes:
  - {name: scratch, source: local}
  - {name: cache, source: memory, size: 2Gi}
  - {name: old, source: "@db.schema.stage/path", uid: 0, gid: 65532}
  - name: state
    source: block
    size: 65536Gi
    blockConfig:
      initialContents: {fromSnapshot: before}
      iops: 3000
      throughput: 125
      encryption: SNOWFLAKE_SSE
      snapshotOnDelete: false
      snapshotDeleteAfter: 7d
  - name: data
    source: stage
    stageConfig:
      name: "@db.schema.stage/path"
      metadataCache: 1h30m
      resources: {requests: {cpu: 0, memory: 0.5Gi}, limits: {cpu: 0.5, memory: 1Gi}}
    uid: 0
  logExporters: {eventTableConfig: {logLevel: INFO}}
  platformMonitor: {metricConfig: {groups: [system, system_limits, status, network, storage]}}
capabilities: {securityContext: {executeAsCaller: true, enableCustomCredentials: false}}
serviceRoles: [{name: Users_1, endpoints: [api]}]
"""
MAIN = {"name": "main", "image": "/db/schema/repository/image:1.0"}
LOCAL = {"name": "v", "source": "local"}


def of(*more, **fields):
    """Return a specification with a container of these fields, and these further containers."""
    return {"spec": {"containers": [MAIN | fields, *more]}}


def holding(**fields):
    """Return a specification of one container with these fields beside it."""
    return {"spec": {"containers": [MAIN], **fields}}


def raised(call, *args, **kwargs):
    """Return the message of the error that a call raises."""
    with pytest.raises(InvalidJobSpecError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def test_everything_that_a_specification_may_say():
    """Each key of the reference but those of services."""
    document = parse(EVERYTHING)
    validate(document)

    assert ("main", "log-agent") == containers(document)
    assert {
        "TEXT": "a",
        "WHOLE": 3,
        "SHARE": 0.5,
        "FLAG": True,
        "VERSION": "1.10",
        "DAY": "2026-01-01",
        "a.b-c": "",
    } == (document["spec"]["containers"][0]["env"])


def test_the_least_that_a_specification_may_say():
    """A name and an image."""
    validate(of())


NAME_FORM = "must be 1 to 63 lower-case letters, digits and '-', from a letter to a letter or digit, got"
MOUNT = {"name": "v", "mountPath": "/v"}
SECRET = {"snowflakeSecret": "s", "envVarName": "A"}
PATH_FORM = "must be an absolute path without '.' and '..', e.g. /data, got"
BOTH_GPUS = "spec.containers[0].resources must have the same number of nvidia.com/gpu in requests and limits."
MEMORY_FORM = "must be a number with one of the units k, M, G, T, Ki, Mi, Gi, Ti, e.g. 16Gi, got"


def resources(**limits):
    """Return a specification whose container has these limits."""
    return of(resources={"limits": limits})


def token(**fields):
    """Return a specification whose container has this sessionTokenConfig."""
    return of(sessionTokenConfig=fields)


def endpoint(**fields):
    """Return a specification with this endpoint."""
    return holding(endpoints=[{"name": "e", **fields}])


def volume(**fields):
    """Return a specification with this volume."""
    return holding(volumes=[{"name": "v", **fields}])


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        # The document itself.
        ({}, "spec is missing."),
        ({"spec": []}, "spec must be a mapping, got a list."),
        (of() | {"sepc": 1}, "sepc is unknown; did you mean spec?"),
        (of() | {"kind": 1}, "kind is unknown; what can stand here: spec, capabilities, serviceRoles."),
        (of() | {"volumes": []}, "volumes can't stand here: it belongs below spec."),
        (of() | {"capabilities": {"securityContext": {"executeAsCaller": 1}}}, "executeAsCaller must be true or false"),
        (of() | {"serviceRoles": [{"name": "r"}]}, "serviceRoles[0].endpoints is missing."),
        (
            of() | {"serviceRoles": [{"name": "r", "endpoints": []}]},
            "serviceRoles[0].endpoints is empty; it takes at l",
        ),
        (
            of() | {"serviceRoles": [{"name": "r", "endpoints": ["api"]}]},
            "serviceRoles[0].endpoints[0] 'api' is not in spec.endpoints, which has nothing.",
        ),
        (
            of() | {"serviceRoles": [{"name": "1r", "endpoints": ["a"]}], **endpoint(port=1, name="a")},
            "serviceRoles[0].name must be letters, digits and '_', from a letter to a letter or digit, got '1r'.",
        ),
        # Its parts.
        (
            holding(resourceManagement={"autoScalingPolicies": {}}),
            "spec.resourceManagement can't stand here: it scales services, and this is a job; choose target_instances",
        ),
        (holding(serviceRoles=[]), "spec.serviceRoles can't stand here: it belongs beside spec, at the top."),
        (holding(capabilities={}), "spec.capabilities can't stand here: it belongs beside spec, at the top."),
        (holding(container=[]), "spec.container is unknown; did you mean containers?"),
        (holding(endpoint=[]), "spec.endpoint is unknown; did you mean endpoints?"),
        (
            holding(networkPolicyConfig={}),
            ("spec.networkPolicyConfig is unknown; what can stand here: containers, endpoints, volumes"),
        ),
        (holding(logExporters={}), "spec.logExporters.eventTableConfig is missing."),
        (
            holding(logExporters={"eventTableConfig": {"logLevel": "DEBUG"}}),
            "spec.logExporters.eventTableConfig.logLevel must be one of INFO, ERROR, NONE; got 'DEBUG'.",
        ),
        (
            holding(platformMonitor={"metricConfig": {"groups": ["cpu"]}}),
            ("metricConfig.groups[0] must be one of system, system_limits, status, network, storage; got"),
        ),
        # Containers.
        ({"spec": {}}, "spec.containers is missing."),
        ({"spec": {"containers": []}}, "spec.containers is empty; it takes at least 1."),
        ({"spec": {"containers": {"main": {}}}}, "spec.containers must be a list, got a mapping."),
        ({"spec": {"containers": [None]}}, "spec.containers[0] must be a mapping, got nothing (null)."),
        (
            {"spec": {"containers": [MAIN | {"name": f"c{n}"} for n in range(21)]}},
            "spec.containers has 21 items, more than the 20 that Snowflake takes.",
        ),
        ({"spec": {"containers": [{"name": "main"}]}}, "spec.containers[0].image is missing."),
        (of(imagePullPolicy="Always"), "spec.containers[0].imagePullPolicy is unknown; "),
        (of(comand=[]), "spec.containers[0].comand is unknown; did you mean command?"),
        (of(MAIN), "spec.containers[1].name 'main' stands in spec.containers[0].name already; choose another one."),
        *((of(name=name), f"spec.containers[0].name {NAME_FORM} {name!r}") for name in ("A", "1a", "a-", "a_b", "")),
        (of(name="a" * 64), f"spec.containers[0].name {NAME_FORM} 'aaa"),
        (of(name=3), f"spec.containers[0].name {NAME_FORM} 3; put it in quotes."),
        (
            of(image="a b"),
            "spec.containers[0].image must be an image such as /db/schema/repository/image:tag, got 'a b'",
        ),
        (of(args="--depth 3"), "spec.containers[0].args must be a list, got '--depth 3'."),
        (of(args=["--depth", 3]), "spec.containers[0].args[1] must be a text, got 3; put it in quotes."),
        (of(command=[None]), "spec.containers[0].command[0] must be a text, got nothing (null)."),
        (of(command=["a\0"]), "spec.containers[0].command[0] holds a NUL character, which no process can be given."),
        (of(mountSessionToken="no"), "spec.containers[0].mountSessionToken must be true or false, got 'no'."),
        # Environment.
        (of(env=["A=1"]), "spec.containers[0].env must be a mapping, got a list."),
        (of(env={"1A": ""}), "spec.containers[0].env: the key must be the name of an environment variable, got '1A'."),
        (
            of(env={"A B": ""}),
            "spec.containers[0].env: the key must be the name of an environment variable, got 'A B'.",
        ),
        (of(env={"A": None}), "spec.containers[0].env.A must be a text, a number, true or false; got nothing (null)."),
        (of(env={"A": ["b"]}), "spec.containers[0].env.A must be a text, a number, true or false; got a list."),
        (of(env={"A": float("nan")}), "spec.containers[0].env.A must be a text, a number, true or false; got nan."),
        (of(env={"A": "\0"}), "spec.containers[0].env.A holds a NUL character, which no process can be given."),
        (of(env={"A": "\udc00"}), "spec.containers[0].env.A holds half a surrogate pair, which is no valid text."),
        (of(env={"A": "x" * 100_001}), "spec.containers[0].env.A has 100001 bytes, more than the 100000"),
        (
            of(env={"A": "a🚀"}),
            "spec.containers[0].env.A holds '🚀', which can't be written into a specification; leave it out or",
        ),
        # Probes.
        (of(readinessProbe={"port": 80}), "spec.containers[0].readinessProbe.path is missing."),
        (
            of(readinessProbe={"port": 0, "path": "/"}),
            "readinessProbe.port must be a whole number from 1 to 65535, got 0.",
        ),
        (of(livenessProbe={"port": 80, "path": "x"}), "livenessProbe.path must be a path that begins with /, got 'x'."),
        (
            of(livenessProbe={"port": 80, "path": "/", "periodSeconds": 1.5}),
            "spec.containers[0].livenessProbe.periodSeconds must be a whole number from 1 to 2147483647, got 1.5.",
        ),
        # Resources.
        (resources(memory=16), f"spec.containers[0].resources.limits.memory {MEMORY_FORM} 16."),
        (resources(memory="16"), f"spec.containers[0].resources.limits.memory {MEMORY_FORM} '16'."),
        (resources(memory="16GB"), f"spec.containers[0].resources.limits.memory {MEMORY_FORM} '16GB'."),
        (resources(memory="16 Gi"), f"spec.containers[0].resources.limits.memory {MEMORY_FORM} '16 Gi'."),
        (resources(cpu="one"), "limits.cpu must be a number of cores, e.g. 0.5 or 500m, got 'one'."),
        (resources(cpu=True), "limits.cpu must be a number of cores, e.g. 0.5 or 500m, got True."),
        (resources(cpu=-1), "limits.cpu must be a number of cores, e.g. 0.5 or 500m, got -1."),
        (resources(disk="1Gi"), "limits.disk is unknown; what can stand here: memory, cpu, nvidia.com/gpu."),
        (resources(**{"nvidia.com/gpus": 1}), "limits.nvidia.com/gpus is unknown; did you mean nvidia.com/gpu?"),
        (resources(**{"nvidia.com/gpu": 1}), BOTH_GPUS),
        (of(resources={"limits": {"nvidia.com/gpu": 1}, "requests": {"nvidia.com/gpu": 2}}), BOTH_GPUS),
        (
            of(resources={"limits": {"nvidia.com/gpu": 0.5}, "requests": {"nvidia.com/gpu": 0.5}}),
            "must be a whole number of GPUs, got 0.5.",
        ),
        # Mounts.
        (
            of(volumeMounts=[MOUNT]),
            "spec.containers[0].volumeMounts[0].name 'v' is not in spec.volumes, which has nothi",
        ),
        (
            of(volumeMounts=[MOUNT])
            | {"spec": {**of(volumeMounts=[MOUNT])["spec"], "volumes": [LOCAL | {"name": "w"}]}},
            "spec.containers[0].volumeMounts[0].name 'v' is not in spec.volumes, which has w.",
        ),
        (of(volumeMounts=[{"name": "v"}]), "spec.containers[0].volumeMounts[0].mountPath is missing."),
        *(
            (of(volumeMounts=[MOUNT | {"mountPath": path}]), f"volumeMounts[0].mountPath {PATH_FORM} {path!r}.")
            for path in ("v", "", "/", "//v", "/a/../b", "/..", "/a/.", "/a:b", "/a\nb")
        ),
        (
            of(volumeMounts=[MOUNT, MOUNT | {"mountPath": "/v/"}]),
            ("volumeMounts[1].mountPath '/v/' stands in spec.containers[0].volumeMounts[0].mountPath already"),
        ),
        # Session tokens.
        (token(), "spec.containers[0].sessionTokenConfig is empty; give it a path or mountConnectionConfig"),
        (token(permission="0600"), "spec.containers[0].sessionTokenConfig has a permission, which needs a path."),
        (
            token(path="/a", permission=600),
            "permission must be a file mode from '0400' to '0644', e.g. '0600', got 600; pu",
        ),
        (token(path="/a", permission="0777"), "permission must be a file mode from '0400' to '0644', e.g. '0600', got"),
        (token(path="/a/../b"), "path must be an absolute path of letters, digits, '-', '_' and '.', got '/a/../b'."),
        (token(path="/a/"), "path must be an absolute path of letters, digits, '-', '_' and '.', got '/a/'."),
        (
            of(mountSessionToken=False, sessionTokenConfig={"path": "/a"}),
            "spec.containers[0] has a sessionTokenConfig, which needs the session token: leave mountSessionToken out.",
        ),
        # Secrets.
        (of(secrets=[{"envVarName": "A"}]), "spec.containers[0].secrets[0].snowflakeSecret is missing."),
        (
            of(secrets=[{"snowflakeSecret": "s"}]),
            "spec.containers[0].secrets[0] needs either directoryPath or envVarName; it has neither.",
        ),
        (
            of(secrets=[SECRET | {"directoryPath": "/a"}]),
            "spec.containers[0].secrets[0] needs either directoryPath or envVarName; it has both.",
        ),
        (
            of(secrets=[SECRET | {"envVarName": "1"}]),
            "envVarName must be the name of an environment variable, got '1'.",
        ),
        (of(secrets=[{"snowflakeSecret": "s", "directoryPath": "a"}]), f"secrets[0].directoryPath {PATH_FORM} 'a'."),
        (
            of(secrets=[SECRET | {"secretKeyRef": "token"}]),
            "secrets[0].secretKeyRef must be one of username, password, secret_string, access_token; got 'token'.",
        ),
        (
            of(secrets=[{"snowflakeSecret": "s", "directoryPath": "/a", "secretKeyRef": "password"}]),
            "spec.containers[0].secrets[0] can't have secretKeyRef with directoryPath: the directory gets a file",
        ),
        (of(secrets=[SECRET | {"snowflakeSecret": ""}]), "snowflakeSecret must be the name of a secret, got ''."),
        (
            of(secrets=[SECRET | {"snowflakeSecret": ["s"]}]),
            "snowflakeSecret must be the name of a secret, got a list.",
        ),
        (
            of(secrets=[SECRET | {"snowflakeSecret": {}}]),
            "secrets[0].snowflakeSecret needs either objectName or objectReference; it has neither.",
        ),
        (
            of(secrets=[SECRET, SECRET]),
            "secrets[1].envVarName 'A' stands in spec.containers[0].secrets[0].envVarName alre",
        ),
        (
            of(secrets=[SECRET | {"envVarName": f"A{n}"} for n in range(51)]),
            "spec has 51 secrets, more than the 50 that Snowflake takes.",
        ),
        # Endpoints.
        (endpoint(), "spec.endpoints[0] needs either port or portRange; it has neither."),
        (endpoint(port=1, portRange="1-2"), "spec.endpoints[0] needs either port or portRange; it has both."),
        (endpoint(port="8080"), "spec.endpoints[0].port must be a whole number from 1 to 65535, got '8080'."),
        (endpoint(port=True), "spec.endpoints[0].port must be a whole number from 1 to 65535, got True."),
        (endpoint(port=65536), "spec.endpoints[0].port must be a whole number from 1 to 65535, got 65536."),
        *(
            (
                endpoint(portRange=span, protocol="TCP"),
                "spec.endpoints[0].portRange must be two numbers from 1 to 65535, the smaller one first, e.g.",
            )
            for span in ("8010-8000", "0-1", "1-65536", "8000", 8000)
        ),
        (endpoint(portRange="1-2"), "spec.endpoints[0] has a portRange, which needs protocol: TCP."),
        (
            endpoint(portRange="1-2", protocol="TCP", public=True),
            "spec.endpoints[0] has a portRange, which can't be pub",
        ),
        (endpoint(port=1, protocol="TCP", public=True), "spec.endpoints[0] is public, which needs protocol: HTTP."),
        (endpoint(port=1, protocol="UDP"), "spec.endpoints[0].protocol must be one of HTTP, TCP; got 'UDP'."),
        (endpoint(port=1, public="yes"), "spec.endpoints[0].public must be true or false, got 'yes'."),
        (endpoint(port=1, corsSettings={}), "spec.endpoints[0].corsSettings.Access-Control-Allow-Origin is missing."),
        (
            endpoint(port=1, corsSettings={"Access-Control-Allow-Origin": ["*"]}),
            "Access-Control-Allow-Origin[0] must be a URL without a path, e.g. https://example.com, got '*'.",
        ),
        (
            holding(endpoints=[{"name": f"e{n}", "port": 1} for n in range(101)]),
            "spec.endpoints has 101 items, more than the 100 that Snowflake takes.",
        ),
        (
            holding(endpoints=[{"name": "e", "port": 1}, {"name": "e", "port": 2}]),
            "spec.endpoints[1].name 'e' stands in spec.endpoints[0].name already; choose another one.",
        ),
        # Volumes.
        (volume(), "spec.volumes[0].source is missing; one of local, memory, block, stage, or begin with @."),
        (
            volume(source="disk"),
            "spec.volumes[0].source must be one of local, memory, block, stage, or begin with @; got",
        ),
        (
            volume(source=None),
            "spec.volumes[0].source must be one of local, memory, block, stage, or begin with @; got",
        ),
        (holding(volumes=["v"]), "spec.volumes[0] must be a mapping, got 'v'."),
        (holding(volumes=[{"source": "local"}]), "spec.volumes[0].name is missing."),
        (
            holding(volumes=[LOCAL, LOCAL]),
            "spec.volumes[1].name 'v' stands in spec.volumes[0].name already; choose anot",
        ),
        (
            holding(volumes=[LOCAL | {"name": f"v{n}"} for n in range(21)]),
            "spec.volumes has 21 items, more than the 20 that Snowflake takes.",
        ),
        (
            holding(volumes=[{"name": f"v{n}", "source": "block", "size": "1Gi"} for n in range(4)]),
            "spec has 4 block volumes, more than the 3 that Snowflake takes.",
        ),
        (
            holding(volumes=[{"name": f"v{n}", "source": "@s"} for n in range(9)]),
            "spec has 9 volumes on stages, more than the 8 that Snowflake takes.",
        ),
        (
            volume(source="local", size="1Gi"),
            "spec.volumes[0].size can't stand here: only memory and block volumes have",
        ),
        (volume(source="local", uid=1), "spec.volumes[0].uid can't stand here: it is for volumes on a stage."),
        (volume(source="memory"), "spec.volumes[0].size is missing."),
        (volume(source="memory", size=2), f"spec.volumes[0].size {MEMORY_FORM} 2."),
        (volume(source="memory", size="2Gi", blockConfig={}), "blockConfig can't stand here: it is for block volumes."),
        (volume(source="block", size="1.5Gi"), "size must be a whole number of Gi from 1Gi to 65536Gi, got '1.5Gi'."),
        (volume(source="block", size="10G"), "size must be a whole number of Gi from 1Gi to 65536Gi, got '10G'."),
        (
            volume(source="block", size="65537Gi"),
            "size must be a whole number of Gi from 1Gi to 65536Gi, got '65537Gi'.",
        ),
        *(
            (
                volume(source="block", size="1Gi", blockConfig={key: value}),
                f"spec.volumes[0].blockConfig.{key}{message}",
            )
            for key, value, message in (
                ("iops", 2999, " must be a whole number from 3000 to 80000, got 2999."),
                ("throughput", 2001, " must be a whole number from 125 to 2000, got 2001."),
                ("encryption", "NONE", " must be one of SNOWFLAKE_SSE, SNOWFLAKE_FULL; got 'NONE'."),
                ("snapshotOnDelete", 0, " must be true or false, got 0."),
                ("snapshotDeleteAfter", "7", " must be hours or days, e.g. 12h or 7d, got '7'."),
                ("initialContents", {}, ".fromSnapshot is missing."),
            )
        ),
        (volume(source="stage"), "spec.volumes[0].stageConfig is missing."),
        (volume(source="stage", stageConfig={}), "spec.volumes[0].stageConfig.name is missing."),
        (
            volume(source="stage", stageConfig={"name": "db.s.stage"}),
            "spec.volumes[0].stageConfig.name must be a path that begins with @ or snow://, got 'db.s.stage'.",
        ),
        (
            volume(source="stage", stageConfig={"name": "@s", "metadataCache": 30}),
            "spec.volumes[0].stageConfig.metadataCache must be a time such as 30s or 1h30m, got 30; put it in quotes.",
        ),
        (volume(source="@s", stageConfig={}), "spec.volumes[0].stageConfig can't stand here: it is for source: stage."),
        (volume(source="@s", uid=-1), "spec.volumes[0].uid must be a whole number from 0 to 4294967294, got -1."),
    ],
)
def test_what_snowflake_would_refuse(document, problem):
    """Each message has the path, what was found, and what is allowed."""
    assert problem in raised(validate, document)


def test_all_problems_at_once():
    """One look at the message is enough to correct them all."""
    document = of(imag="x", env={"A": None}) | {"kind": "Job"}

    assert (
        "spec is not valid:\n"
        "- spec.containers[0].imag is unknown; did you mean image?\n"
        "- spec.containers[0].env.A must be a text, a number, true or false; got nothing (null).\n"
        "- kind is unknown; what can stand here: spec, capabilities, serviceRoles."
    ) == raised(validate, document)


def test_one_problem():
    """It stands in the same line."""
    assert "job.yaml is not valid: spec.containers is missing." == raised(validate, {"spec": {}}, "job.yaml")


def test_many_problems():
    """The first twenty are listed, the others counted."""
    lines = raised(validate, of(env={f"A{n}": None for n in range(30)})).splitlines()

    assert 22 == len(lines)
    assert "- … and 10 more" == lines[-1]


def test_messages_are_short():
    """Whatever was found is cut."""
    assert len(raised(validate, of(name="x" * 90_000))) < 300
