"""A project of three services by docker compose 1.29, 2.40 and 5.6."""

import signal
import urllib.request

import pytest

from conftest import eventually

FILE = """\
services:
  db:
    image: box
    command: ["sh", "-c", "touch /ready; exec sleep 300"]
    init: true
    healthcheck:
      test: ["CMD", "test", "-f", "/ready"]
      interval: 1s
      retries: 10
    volumes: ["data:/data"]
    networks: [back]
  web:
    build: {context: ./web, args: {WORD: built}}
    image: NAME-web
    init: true
    environment: {SET: "SETTING"}
    depends_on: {db: {condition: service_healthy}}
    ports: ["127.0.0.1::80"]
    networks: [back, front]
  worker:
    image: box
    init: true
    command: ["sh", "-c", "i=0; while true; do echo tick $$i; i=$$((i+1)); sleep 0.2; done"]
    depends_on: [db]
    networks: [back]
volumes:
  data: {}
networks:
  back: {}
  front: {}
"""

DOCKERFILE = """\
FROM box
ARG WORD
COPY index.html /www/index.html
RUN echo $WORD > /www/word
CMD ["httpd", "-f", "-p", "80", "-h", "/www"]
"""


def three_services(compose, setting="one"):
    version = 'version: "2.4"\n' if compose.old else ""
    text = version + FILE.replace("NAME", compose.name).replace("SETTING", setting)
    compose.write("docker-compose.yml", text)
    compose.write("web/Dockerfile", DOCKERFILE)
    compose.write("web/index.html", f"page of {compose.name}\n")


@pytest.fixture
def up(compose, client):
    three_services(compose)
    compose.run("up", "-d", "--build")
    yield compose
    compose.run("down", "-v", "-t", "1", "--rmi", "local")
    for image in client.images.list(f"{compose.name}-web"):
        client.images.remove(image.id, force=True)


def fetch(address, path):
    def fetched():
        try:
            return urllib.request.urlopen(f"http://{address}/{path}", timeout=5).read().decode()
        except OSError:
            return None

    return eventually(fetched)


def test_up_ps_port_and_names(up, client):
    db = up.container(client, "db")
    assert db.attrs["State"]["Health"]["Status"] == "healthy"
    assert up.container(client, "web").attrs["Created"] > ""
    said = up.run("ps")
    assert all(service in said for service in ("db", "web", "worker"))
    assert up.run("ps", "-q", "web").strip() == up.container(client, "web").id
    address = up.run("port", "web", "80").strip()
    assert address.startswith("127.0.0.1:")
    assert fetch(address, "index.html") == f"page of {up.name}\n"
    assert fetch(address, "word") == "built\n"
    code, said = up.container(client, "worker").exec_run("ping -c1 -W2 web")
    assert code == 0, said
    assert up.container(client, "db").attrs["Mounts"][0]["Name"] == f"{up.name}_data"
    assert f"{up.name}-web" in up.run("images")


@pytest.mark.slow
def test_up_again_changes_nothing_and_a_change_recreates_one(up, client):
    before = {s: up.container(client, s).id for s in ("db", "web", "worker")}
    up.run("up", "-d")
    assert {s: up.container(client, s).id for s in before} == before
    three_services(up, setting="two")
    up.run("up", "-d")
    after = {s: up.container(client, s).id for s in before}
    assert after["web"] != before["web"]
    assert (after["db"], after["worker"]) == (before["db"], before["worker"])
    assert "SET=two" in up.container(client, "web").attrs["Config"]["Env"]


def test_logs_followed(up):
    said = up.run("logs", "--tail", "3", "worker")
    assert "tick" in said
    following = up.start("logs", "-f", "worker")
    seen = [line for line in (following.stdout.readline() for _ in range(12)) if "tick" in line]
    # How a compose takes an interrupt is its own matter, and the oldest does not always end by one.
    following.kill()
    following.communicate(timeout=120)
    assert len(seen) >= 5, seen


def test_exec_run_and_cp(up, client):
    assert up.run("exec", "-T", "web", "sh", "-c", "echo $SET; exit 0").strip() == "one"
    up.run("exec", "-T", "web", "sh", "-c", "exit 9", code=9)
    assert "ran built" in up.run("run", "--rm", "-T", "--no-deps", "web", "sh", "-c", "echo ran $(cat /www/word)")
    up.run("run", "--rm", "-T", "--no-deps", "worker", "sh", "-c", "exit 5", code=5)
    assert len(client.containers.list(all=True, filters={"label": f"com.docker.compose.project={up.name}"})) == 3
    if up.old:
        return
    up.write("sent", "copied\n")
    up.run("cp", "sent", "web:/www/sent")
    assert up.run("exec", "-T", "web", "cat", "/www/sent") == "copied\n"
    up.run("cp", "web:/www/word", "got")
    assert (up.folder / "got").read_text() == "built\n"


@pytest.mark.slow
def test_scale(up, client):
    up.run("up", "-d", "--scale", "worker=3", "--no-recreate")
    workers = up.containers(client, "worker")
    assert len(workers) == 3
    numbers = {worker.labels["com.docker.compose.container-number"] for worker in workers}
    assert numbers == {"1", "2", "3"}
    up.run("up", "-d", "--scale", "worker=1", "--no-recreate")
    assert len(up.containers(client, "worker", all=True)) == 1


@pytest.mark.slow
def test_stop_start_restart_pause_kill(up, client):
    db = up.container(client, "db")
    up.run("stop", "-t", "1")
    assert {up.container(client, s).status for s in ("db", "web", "worker")} == {"exited"}
    up.run("start")
    assert up.container(client, "db").id == db.id
    assert up.container(client, "web").status == "running"
    started = up.container(client, "worker").attrs["State"]["StartedAt"]
    up.run("restart", "-t", "1", "worker")
    assert up.container(client, "worker").attrs["State"]["StartedAt"] > started
    up.run("pause", "worker")
    assert up.container(client, "worker").status == "paused"
    up.run("unpause", "worker")
    assert up.container(client, "worker").status == "running"
    up.run("kill", "worker")
    eventually(lambda: up.container(client, "worker").status == "exited")
    up.run("rm", "-f", "worker")
    assert up.containers(client, "worker", all=True) == []


@pytest.mark.slow
def test_top_and_events(up, client):
    assert "httpd -f -p 80" in up.run("top", "web")
    watching = up.start("events", "--json")
    eventually(lambda: _restarted(up, watching))
    watching.send_signal(signal.SIGINT)
    said, _ = watching.communicate(timeout=120)
    assert '"action":"start"' in said.replace(" ", "") and "worker" in said


def _restarted(up, watching):
    up.run("restart", "-t", "1", "worker")
    return watching.poll() is None


def test_configs_and_secrets(compose, client):
    compose.write("word.txt", "configured\n")
    compose.write("pass.txt", "hidden\n")
    configs = "" if compose.old else "    configs: [{source: word, target: /etc/word}]\n"
    bottom = "" if compose.old else "configs:\n  word: {file: ./word.txt}\n"
    compose.write(
        "docker-compose.yml",
        'version: "3.8"\nservices:\n  app:\n    image: box\n    init: true\n    command: sleep 300\n    secrets: [pass]\n'
        + configs
        + "secrets:\n  pass: {file: ./pass.txt}\n"
        + bottom,
    )
    compose.run("up", "-d")
    app = compose.container(client, "app")
    assert app.exec_run("cat /run/secrets/pass").output == b"hidden\n"
    if not compose.old:
        assert app.exec_run("cat /etc/word").output == b"configured\n"
    compose.run("down", "-t", "1")


def test_inline_configs_and_environment_secrets(compose, client, monkeypatch):
    if compose.old:
        pytest.skip("1.29 has none")
    monkeypatch.setenv("PASSWORD", "from the environment")
    compose.write(
        "docker-compose.yml",
        "services:\n  app:\n    image: box\n    init: true\n    command: sleep 300\n    configs: [word]\n    secrets: [pass]\n"
        "configs:\n  word: {content: inline}\nsecrets:\n  pass: {environment: PASSWORD}\n",
    )
    compose.run("up", "-d", "--wait")
    app = compose.container(client, "app")
    assert app.exec_run("cat /word").output == b"inline"
    assert app.exec_run("cat /run/secrets/pass").output == b"from the environment"


@pytest.mark.slow
def test_down_removes_everything(compose, client):
    three_services(compose)
    compose.run("up", "-d", "--build")
    assert client.volumes.get(f"{compose.name}_data")
    assert len(client.networks.list(filters={"label": f"com.docker.compose.project={compose.name}"})) == 2
    compose.run("down", "-v", "-t", "1", "--rmi", "local")
    label = {"label": f"com.docker.compose.project={compose.name}"}
    assert client.containers.list(all=True, filters=label) == []
    assert client.networks.list(filters=label) == []
    assert client.volumes.list(filters=label) == []


@pytest.mark.slow
def test_in_the_foreground_until_one_ends(compose, client):
    compose.write(
        "docker-compose.yml",
        'version: "3.8"\nservices:\n  job:\n    image: box\n    command: ["sh", "-c", "echo working; exit 4"]\n'
        "  side:\n    image: box\n    init: true\n    command: sleep 300\n",
    )
    said = compose.run("up", "--exit-code-from", "job", "-t", "1", code=4)
    assert "working" in said
    eventually(lambda: compose.container(client, "side").status == "exited")


def test_a_failing_build_and_a_missing_image(compose):
    compose.write("web/Dockerfile", "FROM box\nRUN exit 3\n")
    compose.write("docker-compose.yml", 'version: "3.8"\nservices:\n  web: {build: ./web}\n')
    said = _fails(compose, "build")
    assert "returned a non-zero code: 3" in said
    compose.write("docker-compose.yml", 'version: "3.8"\nservices:\n  web: {image: "127.0.0.1:1/nosuch"}\n')
    assert "connection refused" in _fails(compose, "up", "-d").lower()


def _fails(compose, *arguments):
    process = compose.start(*arguments)
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0, said
    return said
