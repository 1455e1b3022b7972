"""S3 and what speaks like it (R2, MinIO, Ceph), over s3fs's client.

s3fs finds the endpoint, the region and the credential. Its own verbs are not
used: they retry by themselves and hide the server's Retry-After and ETag.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from ..errors import ObjectNotFound, OverLimit, StoreUnavailable, UsageError
from ..store import StoredObject
from .bucket import MARK, PART, Body, Going, Page, Read, cacheable
from .faults import (
    Limits,
    Moved,
    Party,
    Passing,
    by_status,
    denied,
    no_bucket,
    spanned,
    unavailable,
)
from .room import Part
from .s3_parts import Counted, all_parts, is_of_parts, send_parts

ADVICE = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL for R2 or MinIO),"
    " or run `aws configure`"
)
_DMI = Path("/sys/class/dmi/id/sys_vendor")
_PASSING_CODES = frozenset(
    "RequestTimeout SlowDown InternalError ServiceUnavailable ConditionalRequestConflict"
    " OperationAborted BadDigest XAmzContentSHA256Mismatch IncompleteBody".split()
)
_PLAIN_MD5 = re.compile(r"[0-9a-f]{32}")


class Place(NamedTuple):
    """Whose S3 a URL means, by what follows its `?`; empty: as the environment says."""

    endpoint_url: str = ""
    profile: str = ""
    """In ~/.aws: the credential, and perhaps the region."""
    region: str = ""

    @classmethod
    def parse(cls, query: str, url: str) -> Place:
        """Raises `UsageError`."""
        given = dict(parse_qsl(query, keep_blank_values=True))
        endpoint = given.get("endpoint_url", "")
        hint = "write it like s3://bucket/folder?endpoint_url=https://host:9000&profile=NAME"
        if unknown := given.keys() - set(cls._fields):
            raise UsageError(f"{url!r}: there is no option {min(unknown)}", hint=hint)
        if "endpoint_url" in given and not re.fullmatch(r"https?://[^/@\s]+(/\S*)?", endpoint):
            raise UsageError(f"{url!r}: endpoint_url is no URL of a server", hint=hint)
        return cls(**given)


class S3Bucket:
    def __init__(self, name: str, url: str, limits: Limits, place: Place | None = None) -> None:
        self.name = name
        self._place = place or Place()
        self.make = f"aws s3 mb s3://{name}"
        self.party = Party(url, "anonymous", ADVICE)
        self._limits = limits
        self._fs: Any = None
        self._pid = 0

    def prepare(self) -> None:
        if self._fs is None or self._pid != os.getpid():  # its loop's thread is not forked along
            self._connect()

    def loop(self) -> asyncio.AbstractEventLoop:
        loop: asyncio.AbstractEventLoop = self._fs.loop
        return loop

    def abort(self) -> None:
        """Nothing: the loop's tasks are cancelled by whoever waits for them."""

    def _connect(self) -> None:
        import fsspec.config
        import s3fs
        from aiobotocore.session import AioSession

        configured = {**fsspec.config.conf.get("s3", {}), **fsspec.config.conf.get("s3a", {})}
        place = self._place
        session: Any = AioSession(profile=place.profile or None)
        if place.profile and place.profile not in session.available_profiles:
            raise UsageError(
                f"{self.party.url}: ~/.aws has no profile {place.profile!r}",
                hint=f"aws configure --profile {shlex.quote(place.profile)}",
            )
        if not _on_amazon():
            # It would ask for a machine's role, where no machine has one.
            session.get_component("credential_provider").remove("iam-role")
        options: dict[str, Any] = {
            "session": session,
            "use_listings_cache": False,
            "skip_instance_cache": True,
            "config_kwargs": {
                "retries": {"total_max_attempts": 1},
                "connect_timeout": self._limits.connect,
                "read_timeout": self._limits.stall,
                "max_pool_connections": 32,
                # Bytes are checked by MD5, which every server that speaks S3 understands;
                # the client's newer checksums change the upload's encoding.
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            },
        }
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        endpoint = place.endpoint_url or endpoint
        if endpoint and (place.endpoint_url or "endpoint_url" not in configured):
            options["endpoint_url"] = endpoint
        if endpoint or "endpoint_url" in configured:
            options["config_kwargs"]["s3"] = {"addressing_style": "path"}
        if place.region or not session.get_config_variable("region"):
            options["client_kwargs"] = {
                "region_name": "us-east-1",
                **configured.get("client_kwargs", {}),
                **({"region_name": place.region} if place.region else {}),
            }
        identity = "the key in fsspec's configuration"
        if not {"key", "anon", "username"} & configured.keys():
            identity = self._who(session)
            options["anon"] = identity == "anonymous"
        self.party = Party(self.party.url, identity, ADVICE)
        self._fs = s3fs.S3FileSystem(**options)
        self._pid = os.getpid()

    def _who(self, session: Any) -> str:
        """The credential in words."""
        import fsspec.asyn

        async def find() -> tuple[str, str]:
            credentials = await session.get_credentials()
            if credentials is None:
                return "", ""
            return str(credentials.access_key or ""), str(credentials.method or "")

        key, how = fsspec.asyn.sync(fsspec.asyn.get_loop(), find, timeout=10)
        return f"key ...{key[-4:]} ({how})" if key else "anonymous"

    # -- verbs ----------------------------------------------------------------------------

    async def read(
        self,
        key: str,
        moved: Moved,
        *,
        limit: int = 0,
        span: tuple[int, int] | None = None,
        out: Part | None = None,
    ) -> Read:
        wanted = {"Range": f"bytes={span[0]}-{span[0] + span[1] - 1}"} if span else {}
        async with self._errors(key):
            answer = await self._call("get_object", Key=key, **wanted)
            length = int(answer["ContentLength"])
            async with answer["Body"] as stream:
                if span:
                    if answer["ResponseMetadata"]["HTTPStatusCode"] != 206:
                        raise Passing(f"{self.party.url} ignored the range that was asked for")
                    spanned(self.party, key, answer.get("ContentRange", ""), *span)
                    if length != span[1]:
                        raise Passing(f"{self.party.url} promises {length} bytes of {span[1]}")
                    limit = length
                if length > limit:
                    raise OverLimit(
                        f"{self.party.url}: {key} has {length} bytes; at most {limit} are read"
                    )
                parts, count = [], 0
                while part := await stream.read(1 << 18):
                    count += len(part)
                    moved(len(part))
                    if out:
                        out.put(part)
                    else:
                        parts.append(part)
            if count != (span[1] if span else length):
                raise Passing(f"{self.party.url} broke off {key} at byte {count}")
            data = b"".join(parts)
            if not span:
                self._check_md5(answer, key, data)
            return Read(data, answer["ETag"])

    async def size(self, key: str, moved: Moved) -> int:
        async with self._errors(key):
            return int((await self._call("head_object", Key=key))["ContentLength"])

    def put(self, key: str, body: Body, moved: Moved, *, over: str) -> Going[str]:
        condition = {"IfMatch": over} if over else {"IfNoneMatch": "*"}
        put = self._put_whole if body.size <= PART else self._put_parts
        return put(key, body, moved, condition)

    async def _put_whole(
        self, key: str, body: Body, moved: Moved, condition: dict[str, str]
    ) -> str:
        # One request: it appears whole or not at all.
        async with self._errors(key, writing=True):
            with body.open() as file:
                answer = await self._call(
                    "put_object",
                    Key=key,
                    Body=Counted(file, moved, body.size),
                    ContentLength=body.size,
                    ContentMD5=base64.b64encode(body.md5).decode(),
                    CacheControl=cacheable(key),
                    Metadata={MARK: body.mark},
                    **condition,
                )
        etag = str(answer["ETag"])
        if _is_md5(answer) and etag.strip('"') != body.md5.hex():
            raise await self._other_bytes(key)
        return etag

    async def _put_parts(
        self, key: str, body: Body, moved: Moved, condition: dict[str, str]
    ) -> str:
        import botocore.exceptions as boto

        async with self._errors(key, writing=True):
            if not body.session:
                words = {"CacheControl": cacheable(key), "Metadata": {MARK: body.mark}}
                begun = await self._call("create_multipart_upload", Key=key, **words)
                body.session, body.stored, body.parts = str(begun["UploadId"]), 0, {}
            upload = {"Key": key, "UploadId": body.session}
            try:
                await send_parts(lambda **words: self._call("upload_part", **upload, **words),
                                 body, moved)  # fmt: skip
                answer = await self._completed({**upload, **all_parts(body)}, condition)
            except boto.ClientError as error:
                if error.response.get("Error", {}).get("Code") != "NoSuchUpload":
                    raise
                body.session = ""
                with contextlib.suppress(ObjectNotFound):  # its answer may have been lost
                    if etag := await self.ours(key, body, moved):
                        return etag
                raise Passing(f"{self.party.url} knows nothing of the upload of {key}") from error
        body.session = ""
        etag = str(answer["ETag"])
        if not is_of_parts(etag, body):
            raise await self._other_bytes(key)
        return etag

    async def _completed(self, upload: dict[str, Any], condition: dict[str, str]) -> dict[str, Any]:
        import botocore.exceptions as boto

        try:
            return await self._call("complete_multipart_upload", **upload, **condition)
        except boto.ClientError as error:
            # Some know conditions on single requests only. Then a pack may replace its like.
            if error.response.get("Error", {}).get("Code") != "NotImplemented":
                raise
            return await self._call("complete_multipart_upload", **upload)

    async def _other_bytes(self, key: str) -> Passing:
        async with self._errors(key, writing=True):
            await self._call("delete_object", Key=key)
        return Passing(f"{self.party.url} stored other bytes of {key} than were sent")

    async def drop(self, key: str, body: Body) -> None:
        """Parts that nobody completes are paid for until somebody aborts them."""
        async with self._errors(key, writing=True):
            await self._call("abort_multipart_upload", Key=key, UploadId=body.session)

    async def ours(self, key: str, body: Body, moved: Moved) -> str:
        async with self._errors(key):
            answer = await self._call("head_object", Key=key)
        return str(answer["ETag"]) if answer["Metadata"].get(MARK) == body.mark else ""

    async def page(self, prefix: str, token: str, most: int, moved: Moved) -> Page:
        more = {"ContinuationToken": token} if token else {}
        async with self._errors(prefix):
            answer = await self._call("list_objects_v2", Prefix=prefix, MaxKeys=most, **more)
        found = [
            StoredObject(item["Key"], int(item["Size"]), item["LastModified"].timestamp())
            for item in answer.get("Contents", [])
            if not item["Key"].endswith("/")
        ]
        return found, answer.get("NextContinuationToken", "")

    async def delete(self, key: str) -> None:
        async with self._errors(key, writing=True):
            await self._call("delete_object", Key=key)

    async def copy(self, key: str, to: str) -> None:
        async with self._errors(key, writing=True):
            source = {"Bucket": self.name, "Key": key}
            await self._call("copy_object", Key=to, CopySource=source)

    # -- inside ---------------------------------------------------------------------------

    async def _call(self, verb: str, **words: Any) -> dict[str, Any]:
        await self._fs.set_session()
        client = await self._fs.get_s3(self.name)
        words.update(self._fs.req_kw)
        answer: dict[str, Any] = await getattr(client, verb)(Bucket=self.name, **words)
        return answer

    @contextlib.asynccontextmanager
    async def _errors(self, key: str, *, writing: bool = False) -> AsyncIterator[None]:
        import aiohttp
        import botocore.exceptions as boto

        try:
            yield
        except boto.ClientError as error:
            raise self._answered(error.response, key, writing=writing) from error
        except (boto.NoCredentialsError, boto.PartialCredentialsError) as error:
            raise denied(self.party, str(error), writing=writing) from error
        except (boto.ParamValidationError, ValueError) as error:
            raise StoreUnavailable(f"{self.party.url}: {error}", hint=ADVICE) from error
        except RecursionError as error:  # its client follows the bucket to another region
            raise StoreUnavailable(
                f"{self.party.url} sends us elsewhere again and again",
                hint="look whether a proxy or a login page answers in its place",
            ) from error
        except (boto.BotoCoreError, boto.HTTPClientError) as error:
            raise unavailable(self.party, error) from error
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise unavailable(self.party, error) from error

    def _answered(self, answer: dict[str, Any], key: str, *, writing: bool) -> Exception:
        facts, fault = answer.get("ResponseMetadata", {}), answer.get("Error", {})
        status, code = int(facts.get("HTTPStatusCode", 0)), str(fault.get("Code", ""))
        said = " ".join(filter(None, [code, str(fault.get("Message", ""))]))
        after = facts.get("HTTPHeaders", {}).get("retry-after")
        if code == "NoSuchBucket":
            return no_bucket(self.party, self.name, self.make)
        if code in _PASSING_CODES:
            status = max(status, 500)
        if code == "RequestTimeTooSkewed":
            return denied(self.party, "this machine's clock is wrong", writing=writing)
        return by_status(self.party, key, status, said, after=after, writing=writing)

    def _check_md5(self, answer: dict[str, Any], key: str, data: bytes) -> None:
        """A wrong byte on the way is not to be taken for a wrong object."""
        if _is_md5(answer):
            found = hashlib.md5(data, usedforsecurity=False).hexdigest()
            if found != answer["ETag"].strip('"'):
                raise Passing(f"{self.party.url} sent other bytes of {key} than it stores")


def _is_md5(answer: dict[str, Any]) -> bool:
    """Whether the ETag is the MD5: not with a customer's keys, nor of uploads in parts."""
    plain = answer.get("ServerSideEncryption") in (None, "AES256")
    keyed = "SSECustomerAlgorithm" in answer
    return plain and not keyed and bool(_PLAIN_MD5.fullmatch(answer["ETag"].strip('"')))


def _on_amazon() -> bool:
    if any(name.startswith("AWS_CONTAINER_CREDENTIALS_") for name in os.environ):
        return True
    with contextlib.suppress(OSError):
        return _DMI.read_text().startswith("Amazon")
    return False
