"""Images by docker-py."""

import io
import os
import tarfile

import docker
import pytest


@pytest.fixture
def registry():
    return os.environ["REGISTRY"]


def build(client, text, tag=None, **options):
    return client.images.build(fileobj=io.BytesIO(text.encode()), tag=tag, rm=True, **options)


def test_build_from_a_stream(client):
    image, log = build(client, "FROM box\nENV A=b\nRUN echo made > /made\nCMD cat /made\n", "py/built:1")
    said = "".join(line.get("stream", "") for line in log)
    assert "Step 3/4 : RUN echo made > /made" in said and "Successfully tagged py/built:1" in said
    assert image.tags == ["py/built:1"]
    assert client.containers.run("py/built:1", remove=True) == b"made\n"
    again, log = build(client, "FROM box\nENV A=b\nRUN echo made > /made\nCMD cat /made\n", "py/built:1")
    assert again.id == image.id
    assert "Using cache" in "".join(line.get("stream", "") for line in log)
    client.images.remove("py/built:1")


def test_build_from_a_folder(client, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM box AS base\nCOPY . /all/\nFROM base\nARG WORD\nRUN echo $WORD > /word\n")
    (tmp_path / ".dockerignore").write_text("secret\n")
    (tmp_path / "secret").write_text("s")
    (tmp_path / "plain").write_text("p")
    image, _ = client.images.build(path=str(tmp_path), tag="py/folder:1", buildargs={"WORD": "given"}, labels={"l": "1"}, rm=True)
    assert image.labels == {"l": "1"}
    said = client.containers.run("py/folder:1", ["sh", "-c", "ls /all; cat /word"], remove=True)
    assert said.split() == [b"Dockerfile", b"plain", b"given"]
    target, _ = client.images.build(path=str(tmp_path), target="base", rm=True)
    assert target.id != image.id
    client.images.remove("py/folder:1", force=True)


def test_build_that_fails(client):
    with pytest.raises(docker.errors.BuildError) as failed:
        build(client, "FROM box\nRUN exit 6\n")
    assert "returned a non-zero code: 6" in failed.value.msg
    with pytest.raises(docker.errors.APIError) as bad:
        build(client, "NOSUCH\n")
    assert bad.value.status_code == 400


def test_get_list_and_attributes(client):
    image = client.images.get("box")
    assert image.id.startswith("sha256:") and image.short_id == image.id[:19]
    assert "box:latest" in image.tags
    assert image.attrs["Size"] > 100_000 and image.attrs["RootFS"]["Layers"]
    assert image.id in [i.id for i in client.images.list()]
    assert [i.id for i in client.images.list("box")] == [image.id]
    assert [i.id for i in client.images.list(filters={"reference": "box:lat*"})] == [image.id]
    assert client.images.get(image.id).id == image.id
    assert client.images.get(image.id.removeprefix("sha256:")[:12]).id == image.id
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("nosuch:1")


def test_history_and_tag(client):
    image = client.images.get("box")
    assert image.history()[0]["Id"] == image.id
    assert image.tag("py/tagged", "1")
    assert "py/tagged:1" in client.images.get("box").tags
    client.images.remove("py/tagged:1")
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.remove("py/tagged:1")


def test_remove_while_in_use(client, made):
    image, _ = build(client, "FROM box\nRUN echo u > /u\n", "py/used:1")
    made("true", image="py/used:1")
    with pytest.raises(docker.errors.APIError) as refused:
        client.images.remove(image.id)
    assert refused.value.status_code == 409
    client.images.remove("py/used:1", force=True)


def test_save_and_load(client):
    client.images.get("box").tag("py/saved", "1")
    image = client.images.get("py/saved:1")
    packed = b"".join(image.save(named="py/saved:1"))
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert "manifest.json" in archive.getnames()
    client.images.remove("py/saved:1")
    (loaded,) = client.images.load(packed)
    assert loaded.id == image.id
    assert "py/saved:1" in loaded.tags
    client.images.remove("py/saved:1")


def test_import(client, api):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("only")
        archive.addfile(member)
    answer = api.import_image_from_data(packed.getvalue(), repository="py/imported", tag="1", changes=["CMD x"])
    assert "sha256:" in answer
    assert client.images.get("py/imported:1").attrs["Config"]["Cmd"] == ["/bin/sh", "-c", "x"]
    client.images.remove("py/imported:1")


def test_push_and_pull(client, registry):
    name = f"{registry}/py/pushed"
    client.images.get("box").tag(name, "1")
    pushed = list(client.images.push(name, "1", stream=True, decode=True))
    assert not [line for line in pushed if "error" in line], pushed
    (aux,) = [line["aux"] for line in pushed if "aux" in line]
    assert aux["Tag"] == "1" and aux["Digest"].startswith("sha256:")
    client.images.remove(f"{name}:1")
    pulled = client.images.pull(name, "1")
    assert pulled.tags.count(f"{name}:1") == 1
    assert f"{name}@{aux['Digest']}" in pulled.attrs["RepoDigests"]
    data = client.images.get_registry_data(f"{name}:1")
    assert data.id == aux["Digest"]
    assert data.has_platform("linux/amd64")
    client.images.remove(f"{name}:1", force=True)
    with pytest.raises(docker.errors.NotFound):
        client.images.pull(f"{registry}/py/nosuch", "1")


def test_prune(client):
    first, _ = build(client, "FROM box\nRUN echo dangling > /d\n")
    pruned = client.images.prune(filters={"dangling": True})
    deleted = [entry.get("Deleted") for entry in pruned["ImagesDeleted"]]
    assert first.id in deleted
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get(first.id)
