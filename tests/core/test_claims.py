"""What a manifest claims: which documents and lists are taken, and what each fault is called."""

import base64
import hashlib
import json
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from drawn import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reprod.core import digest
from reprod.core.claims import DIGEST_SIZES, Claims, ClaimsBuilder, Refused, check_path
from reprod.core.claims_json import document_claims, parse_document
from reprod.core.claims_sums import add_sums, check_sums, parse_sums
from reprod.core.entry import Content, Entry, Kind
from reprod.core.manifest import Header, document, document_chunks
from reprod.core.ordered import ordered_tree
from reprod.errors import DamagedError

SHA = hashlib.sha256(b"x").hexdigest()


def entry(path: str = "a", **changes: Any) -> dict[str, Any]:
    found = {
        "path": f"/r/{path}",
        "relative_path": path,
        "size_bytes": 1,
        "modified_time": "2026-01-02T03:04:05.000006Z",
        "permissions": "0644",
        "hashes": {"sha256": SHA},
    }
    return {key: value for key, value in {**found, **changes}.items() if value is not ...}


def manifest(*files: Any, **members: Any) -> dict[str, Any]:
    listed = list(files)
    summary = {"total_files": len(listed), "total_size_bytes": len(listed)}
    found = {"manifest_version": "1.0", "data_path": "/other/root", "hash_algorithms": ["sha256"], "files": listed,
             "summary": summary}  # fmt: skip
    return {key: value for key, value in {**found, **members}.items() if value is not ...}


def parse(text: str | bytes, piece: int = 7) -> Claims:
    data = text.encode() if isinstance(text, str) else text
    return parse_document((data[i : i + piece] for i in range(0, len(data), piece)), "m.json")


def sums(data: bytes, name: str = "SHA256SUMS", piece: int = 5) -> Claims:
    return parse_sums((data[i : i + piece] for i in range(0, len(data), piece)), name)


def ours(paths: list[bytes], **header: Any) -> tuple[Header, list[Entry]]:
    rows = [Entry(p, Content(Kind.FILE, i, hashlib.sha256(p).digest()), 10**18 + i * 1000, 0o100640)
            for i, p in enumerate(sorted(paths))]  # fmt: skip
    rows.append(Entry(b"zz-link", Content(Kind.LINK, 3, hashlib.sha256(b"t").digest())))
    rows.sort(key=lambda row: row.path)
    root = ordered_tree((e.path, e.content.kind is Kind.LINK, e.content.sha256 or b"") for e in rows)
    selection = {"include": [], "exclude": ["*.tmp"], "ignore_file": [], "symlinks": "record"}
    fields: dict[str, Any] = {"selection": selection, **header}
    return Header("/data", 1, ("sha256",), digest.text(root), 0.5, **fields), rows


def test_ours_is_read_as_it_was_written() -> None:
    """Every field that is claimed comes back, hostile names and symlinks included, whatever the pieces are."""
    header, rows = ours([b"a", b"d/\xff", b"d/new\nline", "ü/é".encode(), b"back\\slash"])
    text = b"".join(document_chunks(header, rows))
    for piece in (1, 13, 1 << 20):
        claims = parse(text, piece)
        assert claims.digest == header.digest
        assert claims.algorithms == ("sha256",)
        assert claims.selection is not None
        assert claims.selection.exclude == ("*.tmp",)
        assert (claims.size, claims.weak, claims.warnings, claims.unknown, claims.cut) == (10, False, (), (), False)
        assert sorted(claims.entries) == [e.path for e in rows]
        for row in rows:
            found = claims.entries[row.path]
            assert (found.path, found.kind, found.hashes) == (
                row.path,
                row.content.kind,
                {"sha256": row.content.sha256},
            )
            if row.content.kind is Kind.FILE:
                assert (found.size, found.mode, found.mtime_ns) == (row.content.size, 0o640, row.mtime_ns)
    assert dict(document_claims(document(header, rows)).entries) == dict(claims.entries)


def test_ordered_tree_is_dt1() -> None:
    """The digest in path order equals the one from any order, also where names sort beside their directory."""
    random.seed(7)
    for _ in range(200):
        names = [bytes(random.choices(b"ab-0\xff", k=random.randint(1, 3))) for _ in range(9)] + [b".a", b"a.", b"a-"]
        paths = {b"/".join(random.choices(names, k=random.randint(1, 4))) for _ in range(12)}
        found = {p: (random.random() < 0.2, hashlib.sha256(p).digest()) for p in paths}
        found = {p: v for p, v in found.items() if not any(q.startswith(p + b"/") for q in found)}
        assert ordered_tree((p, *found[p]) for p in sorted(found)) == digest.tree(found)
    assert ordered_tree([]) == digest.EMPTY
    with pytest.raises(ValueError, match="does not come after"):
        ordered_tree([(b"b", False, b"1" * 32), (b"a", False, b"1" * 32)])


def test_the_seeds_document_is_read() -> None:
    """Without selection, digest and symlinks; its absolute paths say nothing; md5 alone is weak."""
    md5 = "9dd4e461268c8034f5c8564e155c67a6"
    claims = document_claims(
        manifest(entry("d/a", hashes={"md5": md5}, permissions=..., modified_time="2024-01-02T03:04:05.678"))
    )
    found = claims.entries[b"d/a"]
    assert found.hashes == {"md5": bytes.fromhex(md5)}
    assert (found.mode, found.mtime_ns, found.size) == (None, None, 1)
    assert (claims.selection, claims.digest, claims.weak) == (None, None, True)
    assert claims.warnings == ("not every entry has the hash that hash_algorithms names: sha256",)


@pytest.mark.parametrize(
    "path",
    ["../../etc/passwd", "/etc/passwd", "a/../../b", "a//b", "./a", "C:\\x", "c:/x", "\\\\srv\\x", "\\x", "", "a\0b",
     "a/", "..", ".", "a/.", "/"],
)  # fmt: skip
def test_paths_that_leave_the_root_are_refused(path: str) -> None:
    """Test 35, in a document and in SHA256SUMS, for files and for links."""
    with pytest.raises(DamagedError) as caught:
        parse(json.dumps(manifest(entry(path))))
    assert caught.value.exit_code == 65
    assert "m.json: files[0]: the path" in caught.value.message
    assert caught.value.hint
    with pytest.raises(DamagedError, match=r"symlinks\[0\]"):
        parse(json.dumps(manifest(symlinks=[{"relative_path": path, "target_sha256": SHA}])))
    escaped = digest.escape(path.encode())[1]
    if path:
        with pytest.raises(DamagedError, match="line 1: the path"):
            sums(b"\\" + SHA.encode() + b"  " + escaped + b"\n")


def test_paths_that_only_look_odd_are_taken() -> None:
    """Dots, spaces, backslashes inside, and a leading one where the exact bytes are given."""
    for path in ("...", "..a", "a/..b", ".hidden", "a b", "d\\e", "C:x", "C", "a:b\\c"):
        assert list(document_claims(manifest(entry(path))).entries) == [path.encode()]
    exact = base64.b64encode(b"\\srv").decode()
    assert list(document_claims(manifest(entry("\\srv", path_b64=exact))).entries) == [b"\\srv"]
    assert check_path(b"C:\\x", exact=True) == b"C:\\x"
    with pytest.raises(Refused):
        check_path(b"../C:\\x", exact=True)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        # names
        (json.dumps(manifest(entry(), entry())), "files[1]: the path 'a' is listed twice"),
        (json.dumps(manifest(entry(), entry(hashes={"sha256": "0" * 64}))), "listed twice"),
        (json.dumps(manifest(entry("\\xff", path_b64=b64(b"\xfe")))), "path_b64 is '\\\\xfe', but relative_path"),
        (json.dumps(manifest(entry("b", path_b64=b64(b"a")))), "path_b64 is 'a', but relative_path 'b'"),
        (json.dumps(manifest(entry("x", path_b64="!!"))), "path_b64 is not base64"),
        (json.dumps(manifest(entry("x", path_b64=1))), "path_b64 is no text"),
        (json.dumps(manifest(entry("a", relative_path=3))), "relative_path is no text"),
        (json.dumps(manifest(entry("a\udcffb"))), "half a character"),
        (json.dumps(manifest(metadata={"x": ["\ud800"]})), "half a character"),
        (json.dumps(manifest(unheard_of="\ude00\ud83d")), "half a character"),
        (json.dumps(manifest(entry(unheard_of={"\uDFFF": 1}))), "half a character"),
        (json.dumps(manifest(**{"\ud800": 1})), "half a character"),
        (json.dumps(manifest(special=[{"relative_path": "../x"}])), "special[0]: the path '../x' has"),
        (json.dumps(manifest(special=[{}])), "special[0]: relative_path is no text"),
        # types
        (json.dumps(manifest(files=None)), "'files': it is no list"),
        (json.dumps(manifest(files={})), "it is no list"),
        (json.dumps(manifest(files="abc")), "it is no list"),
        (json.dumps(manifest("abc")), "files[0]: it is no object"),
        (json.dumps(manifest(None)), "files[0]: it is no object"),
        *[(json.dumps(manifest(entry(size_bytes=n))), "not a size") for n in ("12", -1, 1.5, True, None, 1 << 63)],
        (json.dumps(manifest(entry(size_bytes=...))), "not a size"),
        (json.dumps(manifest(entry())).replace('"size_bytes": 1,', '"size_bytes": 1e400,'), "1e400' is too large"),
        (json.dumps(manifest(entry())).replace('"size_bytes": 1,', '"size_bytes": NaN,'), "NaN is no JSON number"),
        (json.dumps(manifest(entry())).replace('"size_bytes": 1,', '"size_bytes": -Infinity,'), "no JSON number"),
        (json.dumps(manifest(entry())).replace('"size_bytes": 1,', f'"size_bytes": {"9" * 5000},'), "too many digits"),
        *[(json.dumps(manifest(entry(permissions=v))), "permissions is no text") for v in (420, True, [], {}, 0.5)],
        *[(json.dumps(manifest(entry(modified_time=v))), "modified_time is no text") for v in (0, False, [], {}, 1e9)],
        (json.dumps(manifest(entry(hashes=[]))), "it has no hashes"),
        (json.dumps(manifest(entry(hashes={}))), "it has no hashes"),
        (json.dumps(manifest(entry(hashes=...))), "it has no hashes"),
        (json.dumps(manifest(entry(hashes={"sha256": None}))), "the sha256 digest is no text"),
        (json.dumps(manifest(entry(hashes={"sha256": SHA[:-1]}))), "has 63 characters instead of 64"),
        (json.dumps(manifest(entry(hashes={"sha256": "g" * 64}))), "is not hexadecimal"),
        (json.dumps(manifest(entry(hashes={"sha256": SHA[:-2] + "  "}))), "is not hexadecimal"),
        (json.dumps(manifest(entry(hashes={"sha256": "\u0661" * 64}))), "is not hexadecimal"),
        (json.dumps(manifest(entry(hashes={"md5": SHA}))), "has 64 characters instead of 32"),
        (json.dumps(manifest(entry(hashes={"crc32": "00"}))), "none of its hash algorithms is known: 'crc32'"),
        (json.dumps(manifest(summary=3)), "'summary': it is no object"),
        (json.dumps(manifest(summary={"total_files": True})), "total_files is 'True', not a number"),
        (json.dumps(manifest(hash_algorithms="sha256")), "it is no list of names"),
        (json.dumps(manifest(complete="yes")), "neither true nor false"),
        (json.dumps(manifest(digest="dt1:12")), "is no dataset digest"),
        (json.dumps(manifest(symlinks=[{"relative_path": "l"}])), "symlinks[0]: the sha256 digest is no text"),
        # totals
        (json.dumps(manifest(entry(), summary={"total_files": 2})), "summary.total_files is 2, but the list has 1"),
        (json.dumps(manifest(entry(), summary={"total_size_bytes": 7})), "total_size_bytes is 7, but the list has 1"),
        # versions
        (json.dumps(manifest(manifest_version="9.0")), "made by a newer reprod"),
        (json.dumps(manifest(manifest_version="1.1")), "made by a newer reprod"),
        (json.dumps(manifest(manifest_version=1.0)), "is no version of this format"),
        (json.dumps(manifest(manifest_version=...)), "it has no manifest_version"),
        (json.dumps(manifest(files=...)), "it has no list of files"),
        # JSON
        (json.dumps(manifest()).replace('"data_path"', '"files"'), "'files': it is no list"),
        ('{"a": 1, "a": 2}', "the key 'a' comes twice"),
        ('{"manifest_version": "1.0", "files": [{"relative_path": "a", "relative_path": "b"}]}', "twice in one object"),
        ('{"manifest_version": "1.0", "files": [], "files": []}', "the key 'files' comes twice"),
        (json.dumps(manifest(entry()))[:-40], "it ends in the middle"),
        (json.dumps(manifest(entry()))[:100], "it ends in the middle"),
        (json.dumps(manifest())[:-1], "it ends in the middle"),
        ('{"manifest_version": "1.0", ', "it ends in the middle"),
        ("{", "it ends in the middle"),
        (json.dumps(manifest()) + "x", "something follows the end"),
        (json.dumps(manifest()) + json.dumps(manifest()), "something follows the end"),
        (b"\xef\xbb\xbf" + json.dumps(manifest()).encode(), "byte order mark"),
        (json.dumps(manifest()).encode("utf-16"), "it is UTF-16"),
        (json.dumps(manifest()).encode("latin-1").replace(b"other", b"\xff"), "it is not UTF-8"),
        ("[]", "a manifest is a JSON object"),
        ('"x"', "a manifest is a JSON object"),
        (DEEP, "a manifest is a JSON object"),
        (f'{{"x": {DEEP}', "nested too deeply"),
        (f'{{"manifest_version": "1.0", "files": [{DEEP}', "nested too deeply"),
        (f'{{"manifest_version": "1.0", "files": [{{"a": {DEEP}', "nested too deeply"),
        ('{"a" 1}', "where ':' should be"),
        ('{"a": 1 "b": 2}', "where ',' should be"),
        ('{"manifest_version": "1.0", "files": [1 2]}', "it is no object"),
        ('{"a": tru}', "not JSON"),
        ("{1: 2}", "a key is no text"),
        ('{"a": "\n"}', "not JSON: Invalid control character"),
        ("{" + ",".join(f'"k{i}": 1' for i in range(1001)) + "}", "too many members"),
    ],
)  # fmt: skip
def test_faults_are_named(text: str | bytes, says: str) -> None:
    """Each damaged or hostile document is refused with 65, and the message says what is wrong with it."""
    for piece in (11, 1 << 20):
        with pytest.raises(DamagedError) as caught:
            parse(text, piece)
        assert says in caught.value.message, caught.value.message
        assert caught.value.message.startswith("m.json: ")
        assert len(caught.value.message) < 400
        assert caught.value.hint


def test_what_is_lenient() -> None:
    """Upper-case digits, unknown members, unknown algorithms beside a known one, other notations of mode and time."""
    claims = parse(json.dumps(manifest(
        entry(hashes={"sha256": SHA.upper(), "crc32": "00", "tiger": 7}, permissions="-rw-------", modified_time="?"),
        entry("b", modified_time="2026-01-02T04:04:05.000006+01:00", permissions="0o755"),
        unheard_of={"deep": [1, {"x": 1.5e3}], "whole": "\U0001f600", "only written so": "\\ud800"},
    )))  # fmt: skip
    assert claims.entries[b"a"].hashes == {"sha256": bytes.fromhex(SHA)}
    assert claims.warnings == ("hash algorithms that are not known here were passed over: 'crc32', 'tiger'",)
    assert (claims.entries[b"a"].mode, claims.entries[b"a"].mtime_ns) == (None, None)
    assert claims.entries[b"b"].mode == 0o755
    assert claims.entries[b"b"].mtime_ns == 1767323045000006000
    with pytest.raises(KeyError):
        claims.entries[b"nothing"]


def test_an_altered_list_does_not_match_its_digest() -> None:
    """A digest, a path or a link changed, or an entry dropped with its totals: dt1 tells."""
    header, rows = ours([b"a", b"d/b"])
    good = document(header, rows)
    document_claims(good)
    for change in (
        lambda d: d["files"][0]["hashes"].update(sha256="0" * 64),
        lambda d: d["files"][1].update(relative_path="d/c"),
        lambda d: d["symlinks"].clear(),
        lambda d: (d["files"].pop(), d["summary"].update(total_files=1, total_size_bytes=0)),
    ):
        bad = json.loads(json.dumps(good))
        change(bad)
        with pytest.raises(DamagedError, match="it was altered"):
            document_claims(bad)
    document_claims({**good, "metadata": {"x": "y"}, "generated_at": "other"})


def test_incomplete_and_cut_manifests_say_so() -> None:
    """What was not known is no claim; a cut list has no digest; neither is called damaged."""
    found = document_claims(manifest(
        entry(), complete=False, digest=None, cut={"max_files": 1, "total_files": None},
        unreadable=[{"relative_path": "dark"}, {"relative_path": "d", "kind": "directory"},
                    {"relative_path": ".", "kind": "directory"}],
        unstable=[{"relative_path": "w"}], special=[{"relative_path": "any"}],
    ))  # fmt: skip
    assert found.unknown == (b"dark", b"d/", b"/", b"w")
    assert found.cut
    assert "the manifest lists only the first files of the set (max_files)" in found.warnings
    with pytest.raises(DamagedError, match=r"unreadable\[0\]: the path"):
        document_claims(manifest(unreadable=[{"relative_path": "../x"}]))
    lying = document_claims(manifest(entry(), complete=False, digest="dt1:" + "0" * 64))
    assert lying.digest is None
    with pytest.raises(DamagedError, match="it lists no files"):
        document_claims(manifest(files_omitted=True, files_in="SHA256SUMS.gz"))


@pytest.mark.parametrize(
    ("selection", "says"),
    [
        ([], "it is no object"),
        ({"include": "*.x"}, "include is no list of patterns"),
        ({"include": [1], "exclude": [], "ignore_file": [], "symlinks": "record"}, "include is no list"),
        ({"include": [], "exclude": [], "ignore_file": [], "symlinks": "go"}, "symlinks is"),
        (
            {"include": [], "exclude": [], "ignore_file": [], "symlinks": "record", "only": "a/b"},
            "only is no file name",
        ),
        ({"include": [], "exclude": [], "ignore_file": [], "symlinks": "record", "only": 1}, "only is no text"),
        ({"include": [], "exclude": [], "ignore_file": [], "symlinks": "record", "only_b64": "!"}, "only is no"),
        (
            {"include": [], "exclude": ["*" + "[ab]" * 30 + "c*"] * 240, "ignore_file": [], "symlinks": "record"},
            "too many",
        ),
        ({"include": [], "exclude": ["x" * 5000], "ignore_file": [], "symlinks": "record"}, "4,096 characters"),
        ({"include": [], "exclude": ["a/" * 300] * 430, "ignore_file": [], "symlinks": "record"}, "too many patterns"),
        (
            {"include": ["x"] * 1000, "exclude": ["x"] * 1000, "ignore_file": ["x"] * 1001, "symlinks": "record"},
            "3,000 patterns",
        ),
        ({"include": ["\udcff"], "exclude": [], "ignore_file": [], "symlinks": "record"}, "cannot be read"),
    ],
)
def test_hostile_selections_are_refused(selection: Any, says: str) -> None:
    """Patterns run over every name, so what could make them slow is not even compiled."""
    with pytest.raises(DamagedError) as caught:
        document_claims(manifest(selection=selection))
    assert says in caught.value.message


def test_usual_selections_are_taken() -> None:
    """What people write, hundreds at a time, is no attack: nor are rulers in a comment, and many stars in a name."""
    lines = ["# ***** data *****", "", "*.csv", "**/cache/**", "a/**/b", "*_v*.csv", "tmp*/*.log*", "*a*b*", "!*.keep*",
             "**/*.tar.*", "[*]x", "*train*fold*.csv", "*val*fold*.csv", "**/*a*b*c*d*.???",
             *["*_run*_seed*_v*.pt"] * 300]  # fmt: skip
    record = {"include": ["*.csv"] * 500, "exclude": lines, "ignore_file": ["x_*_y"] * 50, "symlinks": "record"}
    assert document_claims(manifest(selection=record)).selection is not None


def test_what_is_below_a_file_or_a_link_is_refused() -> None:
    """No file can lie below another one, in whatever order they are listed; a name that only begins alike is fine."""
    for paths in (["sub", "sub/b"], ["sub/b", "sub"], ["a/b/c/d", "x", "a/b"], ["a/b/c", "a/b/d", "a"],
                  ["a", "ab/c", "a/c"], ["q/b", "q/b-c/d", "q/b/e"]):  # fmt: skip
        with pytest.raises(DamagedError, match="lies below"):
            document_claims(manifest(*map(entry, paths)))
        with pytest.raises(DamagedError, match=r"SHA256SUMS: the path .* lies below"):
            sums(b"".join(SHA.encode() + b"  " + path.encode() + b"\n" for path in paths))
    with pytest.raises(DamagedError, match="lies below 'sub', which is no folder"):
        document_claims(manifest(entry("sub/b"), symlinks=[{"relative_path": "sub", "target_sha256": SHA}]))
    document_claims(manifest(*map(entry, ["a/b/c", "a/bc", "ab", "a/b/d/e", "a/b-", "b", "abc/d", "a/bd/e"])))


def test_sums_as_coreutils_writes_them() -> None:
    """Test 43: escaped names, binary marks, CRLF, comments, our links, every length of digest."""
    found = sums(
        b"# made by hand\r\n"
        + SHA.upper().encode() + b" *bin ary\r\n"
        + b"\\" + SHA.encode() + b"  new\\nline\\\\back\\rcr\n"
        + SHA.encode() + b"   leading space\n"
        + b"#L " + SHA.encode() + b"  link\n"
        + b"#L \\" + SHA.encode() + b"  li\\nnk\n"
        + SHA.encode() + b"  \xff\xfe"
    )  # fmt: skip
    files = [path for path, claim in found.entries.items() if claim.kind is Kind.FILE]
    assert files == [b"bin ary", b"new\nline\\back\rcr", b" leading space", b"\xff\xfe"]
    assert [path for path, claim in found.entries.items() if claim.kind is Kind.LINK] == [b"link", b"li\nnk"]
    assert {claim.hashes["sha256"] for claim in found.entries.values()} == {bytes.fromhex(SHA)}
    assert found.size is None
    for name, algorithm in (("MD5SUMS", "md5"), ("x", "sha1"), ("B2SUMS", "blake2b"), ("b3sums.txt", "blake3"),
                            ("SHA512SUMS", "sha512")):  # fmt: skip
        claims = sums(b"0" * (2 * DIGEST_SIZES[algorithm]) + b"  a\n", name)
        assert claims.algorithms == (algorithm,)
        assert claims.weak == (algorithm in {"md5", "sha1"})


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "it lists nothing"),
        (b"# nothing\n", "it lists nothing"),
        (b"hello\n", "line 1: 'hello' is not a digest, two spaces and a path"),
        (SHA.encode() + b" a\n", "is not a digest"),
        (SHA.encode() + b"\ta\n", "is not a digest"),
        (SHA.encode() + b"  \n", "is not a digest"),
        (SHA.encode() + b"  a\n\n", "line 2: '' is not a digest"),
        (SHA[:-1].encode() + b"  a\n", "a digest of 63 digits"),
        (SHA.encode() + b"  a\n" + SHA[:32].encode() + b"  b\n", "line 2: a digest of 32 digits among those of sha256"),
        (SHA.encode() + b"  a\n" + SHA.encode() + b"  a\n", "line 2: the path 'a' is listed twice"),
        (SHA.encode() + b"  a\n" + SHA.encode()[:20], "line 2: "),
        (b"\\" + SHA.encode() + b"  a\\x\n", "an escape other than"),
        (b"#L " + SHA.encode() + b" a\n", "not a line for a symlink"),
        (SHA.encode() + b"  a\0b\n", "holds a NUL"),
        (SHA.encode() + b"  " + b"a" * (1 << 21), "more than 1,048,576 bytes"),
    ],
)
def test_malformed_sums_are_refused(data: bytes, says: str) -> None:
    """As --strict, with the number of the line."""
    with pytest.raises(DamagedError) as caught:
        sums(data, piece=1 << 16)
    assert says in caught.value.message
    assert caught.value.exit_code == 65


def test_claims_are_held_packed() -> None:
    """Every combination of known and unknown comes out as it went in; the order is that of arrival."""
    builder = ClaimsBuilder()
    rows = [
        (b"a", Kind.FILE, 0, {"sha256": b"1" * 32}, None, None),
        (b"b", Kind.FILE, None, {"md5": b"2" * 16, "sha256": b"1" * 32}, 0o7777, -5),
        (b"c", Kind.LINK, None, {"sha256": b"3" * 32}, None, None),
        (b"d", Kind.FILE, (1 << 63) - 1, {"sha512": b"4" * 64}, 0, 0),
    ]
    for row in rows:
        builder.add(*row)
    assert [tuple(claim) for claim in builder.entries().values()] == [tuple(row[:3]) + row[3:] for row in rows]
    assert builder.algorithms() == ("sha256", "sha512", "md5")
    assert not builder.is_weak()
    assert (builder.files, builder.size) == (3, None)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0001-01-01T00:00:00Z", None), ("9999-12-31T23:59:59Z", None), ("0001-01-01T00:00:00+23:59", None),
        ("9999-12-31T23:59:59-23:59", None), ("2262-04-11T23:47:16.854776Z", None), ("1677-09-21T00:12:43Z", None),
        ("2262-04-11T23:47:16Z", 9223372036000000000), ("1677-09-21T00:12:44Z", -9223372036000000000), (None, None),
    ],
)  # fmt: skip
def test_times_of_any_year(text: str | None, nanoseconds: int | None) -> None:
    """A time beyond 64 bits of nanoseconds, which some file systems keep, is passed over, not an end (70)."""
    assert document_claims(manifest(entry(modified_time=text))).entries[b"a"].mtime_ns == nanoseconds


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=8)
    | st.sampled_from([SHA, "a", "d/b", "../x", "0644", "dt1:" + SHA, "1.0", "SHA256SUMS.gz", "\ud800", "\0", "[z-a]"])
    | st.datetimes(timezones=st.timezones() | st.none()).map(lambda found: found.isoformat()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["sha256", "md5", "crc32", "relative_path", "include", "total_files", "kind", "symlinks"])
        | st.text(max_size=3), inner, max_size=4,
    ),
    max_leaves=6,
)  # fmt: skip
ENTRY = st.fixed_dictionaries(
    {"relative_path": st.just("a") | JSON_LIKE, "size_bytes": st.just(1) | JSON_LIKE,
     "hashes": st.just({"sha256": SHA}) | JSON_LIKE},
    optional={"path_b64": JSON_LIKE, "permissions": JSON_LIKE, "modified_time": JSON_LIKE, "kind": JSON_LIKE,
              "target_sha256": st.just("") | JSON_LIKE},
)  # fmt: skip
LISTED = st.lists(ENTRY | JSON_LIKE, max_size=2) | JSON_LIKE
SELECTION = st.fixed_dictionaries(
    {"include": st.lists(st.text(max_size=6)), "exclude": st.lists(st.text("[]*?!/\\z-a:", max_size=9)) | JSON_LIKE,
     "ignore_file": st.just([]) | JSON_LIKE, "symlinks": st.just("record") | JSON_LIKE},
    optional={"ignore_file_b64": JSON_LIKE, "only": JSON_LIKE, "only_b64": JSON_LIKE},
)  # fmt: skip


@settings(max_examples=examples(400), deadline=None)
@given(
    st.fixed_dictionaries(
        {"manifest_version": st.just("1.0") | JSON_LIKE, "files": LISTED},
        optional={
            **dict.fromkeys(("symlinks", "special", "unreadable", "unstable"), LISTED),
            **dict.fromkeys(
                ("digest", "complete", "cut", "summary", "hash_algorithms", "files_omitted", "files_in", "metadata"),
                JSON_LIKE,
            ),
            "selection": SELECTION | JSON_LIKE,
        },
    )
)
def test_no_value_of_any_member_is_a_crash(found: dict[str, Any]) -> None:
    """Wild values in every member, from memory and from a file, are claims or 65, never another error."""
    for read in (lambda: document_claims(found), lambda: parse(json.dumps(found), 1 << 16)):
        with suppress(DamagedError):
            claims = read()
            assert all(claims.entries[path].path == path for path in claims.entries)


_PIECES = [b"a", b"b.c", b".", b"..", b"...", b"", b"\r", b".\r", b"C:", b"C:\\x", b"1:", b"\\", b"\\n", b"\\\\",
           b"\\x", b"x\0", b"\xff", b"a b", b" ", b"long" * 50]  # fmt: skip

_sum_lines = st.builds(
    lambda start, digest, between, parts, end: start + digest + between + b"/".join(parts) + end,
    st.sampled_from([b"", b"", b"", b"\\", b"#L ", b"#L \\", b"#", b" "]),
    st.sampled_from([SHA.encode()] * 6 + [SHA.upper().encode(), SHA[:32].encode(), SHA[:-1].encode() + b"g", b""]),
    st.sampled_from([b"  ", b"  ", b"  ", b" *", b" ", b"\t"]),
    st.lists(st.sampled_from(_PIECES), min_size=1, max_size=4),
    st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b"\n\n", b""]),
)


@settings(max_examples=examples(1500), deadline=None)
@given(st.lists(_sum_lines, min_size=1, max_size=6), st.booleans(), st.integers(1, 200))
@example([SHA.encode() + b"  a\n", SHA.encode() + b"  ..\r\n"], False, 200)
@example([SHA.encode() + b"  a\n", b"\\" + SHA.encode() + b"  \\\\server\n"], False, 200)
@example([SHA.encode() + b"  a\n", b"\\" + SHA.encode() + b"  C:\\\\x\n"], False, 200)
@example([SHA.encode() + b"  a\n", SHA.encode() + b"  \r\n"], True, 200)
def test_many_lines_are_judged_as_each_by_itself(lines: list[bytes], exact: bool, length: int) -> None:
    """What keeps nothing finds the same first fault as what takes every line; not a path that comes twice."""
    text = SHA.encode() + b"  first\n" + b"".join(lines)
    chunks = [text[i : i + length] for i in range(0, len(text), length)]

    def fault(judge: Callable[[], None]) -> str:
        try:
            judge()
        except DamagedError as error:
            return error.message
        return ""

    builder = ClaimsBuilder()
    slow = fault(lambda: add_sums(builder, chunks, "SUMS", exact=exact))
    fast = fault(lambda: check_sums(chunks, "SUMS", exact=exact))
    assert fast == slow or "listed twice" in slow
