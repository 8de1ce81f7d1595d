"""docker-py and docker compose as clients of the engine that DOCKER_HOST names, which has the image box:latest."""

import os
import subprocess
import time

import docker
import pytest

COMPOSES = {"1.29": "COMPOSE_1", "2.40": "COMPOSE_2", "5.6": "COMPOSE_5"}


def eventually(check, seconds=60):
    """What check gives, as soon as that is true."""
    deadline = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < deadline, f"in vain for {seconds} s"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def client():
    with_timeout = docker.from_env(timeout=120)
    yield with_timeout
    with_timeout.close()


@pytest.fixture
def api(client):
    return client.api


@pytest.fixture
def made(client):
    """Creates containers that are removed after the test."""
    containers = []

    def make(command, image="box", **options):
        container = client.containers.create(image, command, **options)
        containers.append(container)
        return container

    yield make
    for container in containers:
        try:
            container.remove(force=True, v=True)
        except docker.errors.NotFound:
            pass


@pytest.fixture
def running(made):
    """The same, started."""

    def run(command, **options):
        container = made(command, **options)
        container.start()
        return container

    return run


class Project:
    """A folder with a Compose file, and the docker compose that works on it."""

    def __init__(self, program, folder, name, old):
        self.program, self.folder, self.name, self.old = program, folder, name, old

    def start(self, *arguments):
        return subprocess.Popen(
            [self.program, "-p", self.name, *arguments],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def run(self, *arguments, code=0, timeout=120):
        """The output, both streams; the exit code must be this one."""
        process = self.start(*arguments)
        try:
            said, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
            raise AssertionError(f"{arguments} did not end: {said}") from None
        assert process.returncode == code, f"{arguments} gave {process.returncode}: {said}"
        return said

    def containers(self, client, service, **options):
        filters = {
            "label": [
                f"com.docker.compose.project={self.name}",
                f"com.docker.compose.service={service}",
                "com.docker.compose.oneoff=False",
            ]
        }
        return client.containers.list(filters=filters, **options)

    def container(self, client, service):
        (only,) = self.containers(client, service, all=True)
        return only

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


@pytest.fixture(params=list(COMPOSES))
def compose(request, tmp_path):
    """Makes a project by each of the three docker compose; it is taken down after the test."""
    program = os.environ[COMPOSES[request.param]]
    name = f"p{request.param.replace('.', '')}{request.function.__name__.removeprefix('test_')}".replace("_", "")
    project = Project(program, tmp_path, name, request.param == "1.29")
    yield project
    project.start("down", "-v", "-t", "1", "--remove-orphans").communicate(timeout=120)
