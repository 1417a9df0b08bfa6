"""Checks what is in deploy/, as far as that can be done without a cluster.

- The kustomizations and the chart are rendered, by kubectl and by Helm, and hold the objects that they should.
- Every object is valid by the schemas of Kubernetes, where a field that nobody knows is an error.
- The chart says the same as the kustomizations.
- kube-proxy itself takes every command line and every configuration, without a warning.
- The versions are that of the program.
- Every query of the dashboard is PromQL. (That its metrics exist is tested where they are registered.)
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import kubernetes_validate
import promql_parser
import yaml
from helm_python.chart import Chart, lint
from helm_python.errors import HelmError

PROGRAM = sys.argv[1]
CHART = "deploy/helm/kube-proxy"
KUBERNETES = "1.36"
API_SERVER = {"apiServer": "https://192.0.2.1:6443"}
CONFIG_FOLDER = "/var/lib/kube-proxy"

problems = []


def check(good, problem):
    if not good:
        problems.append(problem)


def by_kind(text):
    objects = [document for document in yaml.safe_load_all(text) if document]
    return {thing["kind"]: thing for thing in objects}


def kustomized(folder):
    kubectl = str(Path(sys.executable).with_name("kubectl"))
    rendered = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True)
    check(not rendered.stderr, f"{folder}: {rendered.stderr}")
    return by_kind(rendered.stdout)


def charted(values):
    rendered = chart.render(values=values, name="kube-proxy", namespace="kube-system")
    return by_kind("\n---\n".join(rendered.values()))


def validate(name, objects, kinds):
    check(sorted(objects) == sorted(kinds), f"{name} holds {sorted(objects)}")
    for kind, thing in objects.items():
        try:
            kubernetes_validate.validate(thing, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            problems.append(f"{name}: {kind}: {error.message} at {error.json_path}")


def takes(name, objects):
    """kube-proxy takes the arguments of every container, with the ConfigMap that they name."""
    data = objects.get("ConfigMap", base["ConfigMap"])["data"]
    check(set(data) == {"config.conf", "kubeconfig.conf"}, f"{name}: the ConfigMap holds {sorted(data)}")
    check("clusters" in yaml.safe_load(data["kubeconfig.conf"]), f"{name}: kubeconfig.conf names no cluster")
    pod = objects["DaemonSet"]["spec"]["template"]["spec"]
    for container in pod["initContainers"] + pod["containers"]:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "config.conf").write_text(data["config.conf"])
            arguments = [argument.replace(CONFIG_FOLDER, folder) for argument in container["command"][1:]]
            arguments.append(f"--write-config-to={folder}/complete")
            ran = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True)
            where = f"{name}: container {container['name']}"
            if ran.returncode != 0:
                problems.append(f"{where}: kube-proxy: {ran.stderr.strip().splitlines()[-1]}")
                continue
            unwanted = [line for line in ran.stderr.splitlines() if not line.startswith("I")]
            check(not unwanted, f"{where}: kube-proxy says {unwanted}")
            written = yaml.safe_load(Path(folder, "complete").read_text())
            check(
                written["clientConnection"]["kubeconfig"] == f"{CONFIG_FOLDER}/kubeconfig.conf",
                f"{where}: the configuration names no kubeconfig",
            )
            port = int(written["healthzBindAddress"].rpartition(":")[2])
            for probe in ["livenessProbe", "readinessProbe"]:
                asked = container.get(probe, {}).get("httpGet", {}).get("port", port)
                check(asked == port, f"{where}: {probe} asks port {asked}, not {port}")


def refuses(values):
    try:
        charted(values)
    except HelmError:
        return
    problems.append(f"the chart takes the values {values}")


def same(one, other):
    """Equal, in whatever order things with names are listed."""
    return ordered(one) == ordered(other)


def ordered(value):
    if isinstance(value, dict):
        return {key: ordered(inner) for key, inner in value.items()}
    if isinstance(value, list):
        named = all(isinstance(inner, dict) and "name" in inner for inner in value)
        return [ordered(inner) for inner in (sorted(value, key=lambda inner: inner["name"]) if named else value)]
    return value


def main_container(objects):
    return objects["DaemonSet"]["spec"]["template"]["spec"]["containers"][0]


everything = ["ServiceAccount", "ClusterRoleBinding", "ConfigMap", "DaemonSet"]
chart = Chart.load(CHART)
base = kustomized("deploy/kustomize/base")
kubeadm = kustomized("deploy/kustomize/kubeadm")
sets = {
    "kustomize/base": (base, everything),
    "kustomize/kubeadm": (kubeadm, ["DaemonSet"]),
}
charts = {
    "nftables": {**API_SERVER, "config": {"clusterCIDR": "10.244.0.0/16"}},
    "iptables": {"mode": "iptables", "existingConfigMap": "kube-proxy"},
    "ipvs": {**API_SERVER, "mode": "ipvs", "config": {"healthzBindAddress": "[::]:12345"}, "tolerations": []},
}
for mode, values in charts.items():
    kinds = [kind for kind in everything if "existingConfigMap" not in values or kind != "ConfigMap"]
    sets[f"chart, mode {mode}"] = (charted(values), kinds)
for name, (objects, kinds) in sets.items():
    validate(name, objects, kinds)
    takes(name, objects)

nftables = sets["chart, mode nftables"][0]
check(same(nftables["DaemonSet"], base["DaemonSet"]), "the chart's DaemonSet is not that of kustomize/base")
check(nftables["ClusterRoleBinding"] == base["ClusterRoleBinding"], "the chart's rights are not those of kustomize/base")
configs = [yaml.safe_load(objects["ConfigMap"]["data"]["config.conf"]) for objects in (nftables, base)]
check(configs[0] == configs[1], f"the chart's configuration is not that of kustomize/base: {configs}")
iptables = sets["chart, mode iptables"][0]
check(
    same(iptables["DaemonSet"], kubeadm["DaemonSet"]),
    "the chart's DaemonSet of mode iptables is not that of kustomize/kubeadm",
)
for name, (objects, _) in sets.items():
    rights = main_container(objects)["securityContext"]
    check(not rights["privileged"] and rights["capabilities"]["drop"] == ["ALL"], f"{name}: the proxy has too many rights")
    init = objects["DaemonSet"]["spec"]["template"]["spec"]["initContainers"][0]
    check(init["securityContext"]["privileged"], f"{name}: the init container may not make its settings")
    check("--init-only" in init["command"], f"{name}: the init container does not end")

refuses({})
refuses({**API_SERVER, "mode": "userspace"})
refuses({**API_SERVER, "unknown": 1})
refuses({"apiServer": "192.0.2.1"})
linted = lint(CHART, values=API_SERVER)
loud = [message for message in linted["messages"] if message["severity"] > 1]
check(not loud and not linted["errors"], f"helm lint: {loud} {linted['errors']}")

version = subprocess.run([PROGRAM, "--version=raw"], capture_output=True, text=True).stdout.strip()
for key in ["version", "appVersion"]:
    check(chart.metadata[key] == version, f"{key} of Chart.yaml is {chart.metadata[key]}, not {version}")
for name, (objects, _) in sets.items():
    image = main_container(objects)["image"]
    check(re.fullmatch(f"kube-proxy:{version}(-iptables)?", image), f"{name}: the image is {image}, not {version}")

dashboard = json.loads(Path("deploy/grafana/kube-proxy.json").read_text())
queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
check(queries, "the dashboard asks nothing")
for query in queries:
    try:
        promql_parser.parse(query.replace("$__rate_interval", "5m"))
    except ValueError as error:
        problems.append(f"{query}: {error}")

for problem in problems:
    print(f"tools/manifests: {problem}", file=sys.stderr)
objects = sum(len(objects) for objects, _ in sets.values())
print(f"{objects} objects of {len(sets)} renderings, {len(queries)} queries: {len(problems)} problems")
sys.exit(1 if problems else 0)
