"""Networks, volumes, events and the engine itself by docker-py."""

import threading
import time

import docker
import pytest

from conftest import eventually


def test_info_version_ping_df(client):
    assert client.ping()
    version = client.version()
    assert version["Os"] == "linux" and version["Components"][0]["Name"] == "Engine"
    info = client.info()
    assert info["OSType"] == "linux" and info["NCPU"] >= 1 and info["MemTotal"] > 0
    usage = client.df()
    assert {"Images", "Containers", "Volumes", "LayersSize"} <= set(usage)


@pytest.mark.parametrize("version", ["1.41", "1.44"])
def test_older_versions(version):
    try:
        client = docker.DockerClient.from_env(version=version)
        assert client.containers.run("box", "echo old", remove=True) == b"old\n"
    except docker.errors.APIError as error:
        # An engine that is older than the client's version says so.
        assert error.status_code == 400 and "too new" in str(error)
    finally:
        client.close()


def test_network_with_ipam(client, running):
    pool = docker.types.IPAMPool(subnet="10.212.3.0/24", gateway="10.212.3.1")
    network = client.networks.create("py-net", ipam=docker.types.IPAMConfig(pool_configs=[pool]), labels={"a": "b"})
    try:
        container = running("sleep 60", name="py-joined")
        network.connect(container, ipv4_address="10.212.3.50", aliases=["joined"])
        network.reload()
        assert network.containers == [container]
        assert network.attrs["IPAM"]["Config"][0]["Subnet"] == "10.212.3.0/24"
        found = client.containers.run("box", "ping -c1 -W2 joined", network="py-net", remove=True)
        assert b"10.212.3.50" in found
        network.disconnect(container)
        network.reload()
        assert network.containers == []
    finally:
        client.networks.get("py-net").remove()


def test_networks_listed_and_refused(client):
    one = client.networks.create("py-one", labels={"py": "x"}, internal=True, attachable=True)
    try:
        assert [n.id for n in client.networks.list(filters={"label": "py=x"})] == [one.id]
        assert [n.id for n in client.networks.list(names=["py-one"])] == [one.id]
        assert [n.id for n in client.networks.list(ids=[one.id])] == [one.id]
        assert one.attrs["Internal"] is True
        with pytest.raises(docker.errors.APIError) as again:
            client.networks.create("py-one", check_duplicate=True)
        assert again.value.status_code == 409
    finally:
        one.remove()
    with pytest.raises(docker.errors.NotFound):
        client.networks.get("py-one")
    client.networks.create("py-pruned", labels={"py-pruned": "1"})
    assert client.networks.prune(filters={"label": "py-pruned"})["NetworksDeleted"] == ["py-pruned"]


def test_volumes(client, made):
    volume = client.volumes.create("py-data", labels={"a": "b"})
    assert (volume.name, volume.attrs["Driver"], volume.attrs["Labels"]) == ("py-data", "local", {"a": "b"})
    client.containers.run("box", ["sh", "-c", "echo kept > /d/x"], volumes={"py-data": {"bind": "/d"}}, remove=True)
    user = made("cat /d/x", volumes={"py-data": {"bind": "/d", "mode": "ro"}})
    user.start()
    user.wait()
    assert user.logs() == b"kept\n"
    user.reload()
    (mount,) = user.attrs["Mounts"]
    assert (mount["Name"], mount["Destination"], mount["RW"], mount["Mode"]) == ("py-data", "/d", False, "ro")
    with pytest.raises(docker.errors.APIError) as busy:
        volume.remove()
    assert busy.value.status_code == 409
    user.remove()
    assert "py-data" in [v.name for v in client.volumes.list(filters={"dangling": True})]
    volume.remove()
    with pytest.raises(docker.errors.NotFound):
        client.volumes.get("py-data")


def test_mounts(client, tmp_path):
    (tmp_path / "word").write_text("bound")
    mounts = [
        docker.types.Mount("/b", str(tmp_path), type="bind", read_only=True),
        docker.types.Mount("/t", None, type="tmpfs", tmpfs_size=1 << 20),
        docker.types.Mount("/v", "py-mounted", type="volume", labels={"x": "y"}),
    ]
    script = "cat /b/word; df -k /t | tail -1 | grep -q 1024 && echo tmp; echo x > /v/x"
    assert client.containers.run("box", ["sh", "-c", script], mounts=mounts, remove=True) == b"boundtmp\n"
    volume = client.volumes.get("py-mounted")
    assert volume.attrs["Labels"] == {"x": "y"}
    volume.remove()


def test_events_past_and_filtered(client):
    since = int(time.time())
    client.containers.run("box", "true", name="py-events", remove=True)
    until = int(time.time()) + 1
    filters = {"container": "py-events", "event": ["create", "start", "die", "destroy"]}
    events = list(client.events(since=since, until=until, decode=True, filters=filters))
    assert [event["Action"] for event in events] == ["create", "start", "die", "destroy"]
    died = events[2]
    assert died["Type"] == "container" and died["status"] == "die" and died["from"] == "box"
    assert died["Actor"]["Attributes"]["exitCode"] == "0"
    assert died["timeNano"] // 1_000_000_000 == died["time"]


def test_events_live(client):
    stream = client.events(decode=True, filters={"type": "volume", "event": "create"})
    seen = []
    thread = threading.Thread(target=lambda: seen.append(next(stream)), daemon=True)
    thread.start()

    def made():
        client.volumes.create("py-live").remove()
        return seen

    eventually(made)
    assert seen[0]["Actor"]["ID"] == "py-live"
    stream.close()


def test_swarm_is_refused(client):
    with pytest.raises(docker.errors.APIError) as refused:
        client.services.list()
    assert refused.value.status_code == 503
    assert "This node is not a swarm manager" in refused.value.explanation
    assert client.info()["Swarm"]["LocalNodeState"] == "inactive"
