"""Containers by docker-py."""

import io
import socket
import tarfile
import time

import docker
import pytest

from conftest import eventually


def test_run_gives_the_output(client):
    assert client.containers.run("box", "echo hello", remove=True) == b"hello\n"
    both = client.containers.run("box", ["sh", "-c", "echo a; echo b >&2"], remove=True, stderr=True)
    assert sorted(both.splitlines()) == [b"a", b"b"]


def test_run_of_what_fails(client):
    with pytest.raises(docker.errors.ContainerError) as failed:
        client.containers.run("box", ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    assert (failed.value.exit_status, failed.value.stderr) == (3, b"bad\n")
    with pytest.raises(docker.errors.APIError) as missing:
        client.containers.run("box", "nosuch", remove=True)
    assert missing.value.status_code in (400, 404)
    with pytest.raises(docker.errors.ImageNotFound):
        client.containers.create("nosuch:1", "true")


def test_attributes_and_state(running, client):
    container = running(["sh", "-c", "sleep 600"], name="py-attributes", labels={"a": "b"}, environment={"X": "1"})
    assert container.status == "created"
    container.reload()
    assert (container.status, container.name, container.labels["a"]) == ("running", "py-attributes", "b")
    assert container.image == client.images.get("box")
    assert "X=1" in container.attrs["Config"]["Env"]
    assert container.short_id == container.id[:12]
    assert client.containers.get("py-attributes").id == container.id
    assert container.attrs["State"]["Pid"] > 0
    assert container.attrs["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]


def test_list_with_filters(running, made, client):
    up = running("sleep 600", labels=["py-list"])
    idle = made("true", labels=["py-list"])
    assert [c.id for c in client.containers.list(filters={"label": "py-list"})] == [up.id]
    both = client.containers.list(all=True, filters={"label": "py-list"})
    assert {c.id for c in both} == {up.id, idle.id}
    created = client.containers.list(all=True, filters={"label": "py-list", "status": "created"})
    assert [c.id for c in created] == [idle.id]
    assert client.containers.list(all=True, filters={"label": "py-list"}, limit=1)[0].id == idle.id
    assert client.containers.list(all=True, sparse=True, filters={"id": up.id})[0].attrs["Image"] == "box"


def test_stop_kill_restart_wait(running):
    container = running(["sh", "-c", "trap 'exit 4' TERM; echo up; while :; do sleep 0.1; done"])

    def listens(times):
        eventually(lambda: container.logs().count(b"up") == times)

    listens(1)
    container.stop(timeout=60)
    assert container.wait()["StatusCode"] == 4
    container.start()
    listens(2)
    container.kill()
    assert container.wait()["StatusCode"] == 137
    container.restart(timeout=1)
    container.reload()
    assert container.status == "running"
    listens(3)
    container.kill("SIGTERM")
    assert container.wait()["StatusCode"] == 4


def test_wait_for_a_removal(made):
    container = made(["sh", "-c", "sleep 1; exit 7"], auto_remove=True)
    container.start()
    assert container.wait(condition="removed")["StatusCode"] == 7
    with pytest.raises(docker.errors.NotFound):
        container.reload()


def test_pause_and_unpause(running):
    container = running("sleep 600")
    container.pause()
    container.reload()
    assert container.status == "paused"
    with pytest.raises(docker.errors.APIError) as refused:
        container.exec_run("true")
    assert refused.value.status_code == 409
    container.unpause()
    container.reload()
    assert container.status == "running"


def test_rename_update_diff_commit(running, client):
    container = running(["sh", "-c", "echo x > /made; sleep 600"], mem_limit="64m")
    container.rename("py-renamed")
    container.update(mem_limit="96m", memswap_limit="192m", restart_policy={"Name": "on-failure", "MaximumRetryCount": 2})
    container.reload()
    assert container.name == "py-renamed"
    host = container.attrs["HostConfig"]
    assert (host["Memory"], host["MemorySwap"]) == (96 << 20, 192 << 20)
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
    eventually(lambda: {"Path": "/made", "Kind": 1} in (container.diff() or []))
    image = container.commit("py/committed", "1", message="words", author="me", changes=["ENV A=b"])
    assert image.tags == ["py/committed:1"]
    assert "A=b" in image.attrs["Config"]["Env"]
    assert (image.attrs["Comment"], image.attrs["Author"]) == ("words", "me")
    client.images.remove("py/committed:1")


def test_top_and_stats(running):
    container = running(["sh", "-c", "sleep 61; true"])
    top = eventually(lambda: "sleep 61" in str(container.top()) and container.top())
    assert top["Titles"][:3] == ["UID", "PID", "PPID"]
    stats = container.stats(stream=False)
    assert stats["memory_stats"]["usage"] > 0
    assert stats["pids_stats"]["current"] >= 2
    assert stats["precpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert stats["networks"]["eth0"]["rx_bytes"] >= 0
    stream = container.stats(decode=True)
    assert len([next(stream), next(stream)]) == 2
    stream.close()


def test_put_and_get_archive(made):
    container = made(["cat", "/in/word"])
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("in/word")
        member.size, member.mode, member.uid = 5, 0o640, 1000
        archive.addfile(member, io.BytesIO(b"hello"))
    assert container.put_archive("/", packed.getvalue())
    stream, stat = container.get_archive("/in/word")
    assert (stat["name"], stat["size"], stat["linkTarget"]) == ("word", 5, "")
    assert stat["mode"] & 0o777 == 0o640
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
        member = archive.getmember("word")
        assert archive.extractfile(member).read() == b"hello"
        assert (member.uid, member.mode & 0o777) == (1000, 0o640)
    container.start()
    container.wait()
    assert container.logs() == b"hello"
    with pytest.raises(docker.errors.NotFound):
        container.get_archive("/nosuch")
    with pytest.raises(docker.errors.NotFound):
        container.put_archive("/nosuch", packed.getvalue())


def test_export(running):
    container = running(["sh", "-c", "echo x > /made"])
    container.wait()
    packed = io.BytesIO(b"".join(container.export()))
    with tarfile.open(fileobj=packed) as archive:
        assert archive.extractfile("made").read() == b"x\n"


def test_logs(running):
    container = running(["sh", "-c", "echo bad >&2; sleep 1; echo one; echo two"])
    container.wait()
    assert container.logs(stderr=False) == b"one\ntwo\n"
    assert container.logs(stdout=False) == b"bad\n"
    assert container.logs(stderr=False, tail=1) == b"two\n"
    stamped = container.logs(stdout=False, timestamps=True).decode()
    assert stamped[4] == "-" and stamped.endswith("Z bad\n")
    assert container.logs(since=int(time.time()) + 100) == b""
    assert list(container.logs(stream=True, follow=True, stderr=False)) == [b"one\n", b"two\n"]


def test_logs_follow_while_it_runs(running):
    container = running(["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done"])
    assert b"".join(container.logs(stream=True, follow=True)) == b"1\n2\n3\n"


def test_attach_by_socket(made):
    container = made(["sh", "-c", "read word; echo got $word; echo bad >&2"], stdin_open=True)
    sock = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    container.start()
    raw = sock._sock
    raw.settimeout(60)
    raw.sendall(b"it\n")
    got = b""
    while piece := raw.recv(4096):
        got += piece
    sock.close()
    assert b"\x01\x00\x00\x00\x00\x00\x00\x07got it\n" in got
    assert b"\x02\x00\x00\x00\x00\x00\x00\x04bad\n" in got


def test_attach_stream_and_logs(running):
    container = running(["sh", "-c", "echo before; sleep 1; echo after"])
    eventually(lambda: container.logs() == b"before\n")
    stream = container.attach(stream=True, logs=True)
    assert b"".join(stream) == b"before\nafter\n"
    assert container.attach(logs=True, stream=False) == b"before\nafter\n"


def test_exec_run(running):
    container = running("sleep 600")
    assert container.exec_run("echo hi") == (0, b"hi\n")
    code, (out, err) = container.exec_run(["sh", "-c", "echo a; echo b >&2; exit 5"], demux=True)
    assert (code, out, err) == (5, b"a\n", b"b\n")
    code, said = container.exec_run("sh -c 'echo $X; pwd; id -u'", environment={"X": "y"}, workdir="/tmp", user="1000")
    assert (code, said) == (0, b"y\n/tmp\n1000\n")
    assert container.exec_run("nosuch").exit_code in (126, 127)
    _, stream = container.exec_run(["sh", "-c", "echo 1; sleep 0.2; echo 2"], stream=True)
    assert b"".join(stream) == b"1\n2\n"
    assert not container.exec_run("true", detach=True).output


def test_exec_by_socket_on_a_terminal(running, api):
    container = running("sleep 600")
    exec_id = api.exec_create(container.id, ["sh", "-c", "read x; echo got $x; tty"], stdin=True, tty=True)["Id"]
    sock = api.exec_start(exec_id, tty=True, socket=True)
    raw = sock._sock if hasattr(sock, "_sock") else sock
    raw.settimeout(60)
    api.exec_resize(exec_id, height=20, width=90)
    raw.sendall(b"it\n")
    got = b""
    while piece := raw.recv(4096):
        got += piece
    sock.close()
    assert b"got it\r\n" in got and b"/dev/pts/" in got
    info = api.exec_inspect(exec_id)
    assert (info["Running"], info["ExitCode"], info["ContainerID"]) == (False, 0, container.id)
    assert info["ProcessConfig"]["tty"] is True
    assert info["ProcessConfig"]["entrypoint"] == "sh"


def test_half_close_ends_the_input(client):
    api = client.api
    once = api.create_container("box", "wc -c", stdin_open=True, host_config=api.create_host_config())
    try:
        sock = api.attach_socket(once, params={"stdin": 1, "stdout": 1, "stream": 1})
        api.start(once)
        sock._sock.settimeout(60)
        sock._sock.sendall(b"x" * 100_000)
        sock._sock.shutdown(socket.SHUT_WR)
        got = b""
        while piece := sock._sock.recv(4096):
            got += piece
        sock.close()
        assert got.endswith(b"100000\n")
    finally:
        api.remove_container(once, force=True)


def test_ports(running):
    container = running("httpd -f -p 80 -h /etc", ports={"80/tcp": ("127.0.0.1", None), "81/udp": 28181})
    container.reload()
    (bound,) = container.ports["80/tcp"]
    assert bound["HostIp"] == "127.0.0.1" and int(bound["HostPort"]) > 1024
    assert "28181" in {b["HostPort"] for b in container.ports["81/udp"]}

    def fetched():
        try:
            with socket.create_connection(("127.0.0.1", int(bound["HostPort"])), 2) as sock:
                sock.sendall(b"GET /passwd HTTP/1.0\r\n\r\n")
                return b"sailor" in b"".join(iter(lambda: sock.recv(4096), b""))
        except OSError:
            return False

    assert eventually(fetched)


def test_host_config(made):
    ulimit = docker.types.Ulimit(name="nofile", soft=111, hard=222)
    container = made(
        "true",
        cap_add=["NET_ADMIN"],
        cap_drop=["CHOWN"],
        dns=["10.1.1.1"],
        extra_hosts={"some": "10.2.2.2"},
        read_only=True,
        tmpfs={"/t": "size=1m"},
        ulimits=[ulimit],
        sysctls={"net.ipv4.ip_forward": "1"},
        shm_size="16m",
        pids_limit=50,
        nano_cpus=500_000_000,
        oom_score_adj=100,
        group_add=["5"],
        log_config=docker.types.LogConfig(type="json-file", config={"max-size": "1m"}),
        init=True,
        security_opt=["no-new-privileges"],
    )
    container.reload()
    host = container.attrs["HostConfig"]
    assert [c.removeprefix("CAP_") for c in host["CapAdd"] + host["CapDrop"]] == ["NET_ADMIN", "CHOWN"]
    assert (host["Dns"], host["ExtraHosts"], host["ReadonlyRootfs"]) == (["10.1.1.1"], ["some:10.2.2.2"], True)
    assert host["Tmpfs"] == {"/t": "size=1m"}
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 111, "Hard": 222}]
    assert host["Sysctls"] == {"net.ipv4.ip_forward": "1"}
    assert (host["ShmSize"], host["PidsLimit"], host["NanoCpus"]) == (16 << 20, 50, 500_000_000)
    assert (host["OomScoreAdj"], host["GroupAdd"], host["Init"]) == (100, ["5"], True)
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1m"}}
    assert host["SecurityOpt"] == ["no-new-privileges"]


def test_healthcheck(running):
    second = 1_000_000_000
    check = {"test": ["CMD", "test", "-f", "/ok"], "interval": second // 2, "timeout": 20 * second, "retries": 1}
    container = running("sleep 600", healthcheck=check)

    def health():
        container.reload()
        return container.attrs["State"]["Health"]["Status"]

    assert health() in ("starting", "unhealthy")
    eventually(lambda: health() == "unhealthy")
    container.exec_run("touch /ok")
    eventually(lambda: health() == "healthy")
    assert container.attrs["State"]["Health"]["Log"][-1]["ExitCode"] == 0


def test_prune(made, client):
    made("true", labels=["py-prune"])
    pruned = client.containers.prune(filters={"label": "py-prune"})
    assert len(pruned["ContainersDeleted"]) == 1
    assert pruned["SpaceReclaimed"] == 0
