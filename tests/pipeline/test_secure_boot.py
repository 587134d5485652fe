"""Secure Boot signatures as other tools read them, and keys that are damaged or open to others."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from dsl.compiler import pe
from dsl.compiler.pipeline import compile_program
from dsl.lang import asm, machine
from pipeline import secure_boot
from pipeline.assemble import APPLICATION_BASE
from pipeline.authenticode import CERTIFICATE_DIRECTORY, detached, sign_image
from pipeline.errors import UsageError

pytestmark = pytest.mark.t0
SBVERIFY = shutil.which("sbverify")
OPENSSL = shutil.which("openssl")


@machine(naked=True)
def application() -> None:
    """A program that ends at once."""
    asm("ret")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys for these tests."""
    folder = tmp_path_factory.mktemp("keys") / "secure-boot"
    secure_boot.make(folder)
    return folder


def keys_of(folder: Path) -> secure_boot.SecureBootKeys:
    keys = secure_boot.load(folder)
    assert keys is not None
    return keys


@pytest.fixture(scope="module")
def plain() -> bytes:
    """An application that is not signed."""
    return compile_program(application, base=APPLICATION_BASE).pe()


@pytest.mark.skipif(SBVERIFY is None, reason="sbverify (Debian package sbsigntool) is missing")
def test_sbverify_takes_the_signature_and_no_other(folder: Path, plain: bytes, tmp_path: Path) -> None:
    """The right certificate verifies it; another's does not, nor a file with any of some bytes changed."""

    def verified(file: bytes, name: str) -> bool:
        path = tmp_path / "application.efi"
        path.write_bytes(file)
        command = [str(SBVERIFY), "--cert", str(folder / f"{name}.crt"), str(path)]
        return subprocess.run(command, capture_output=True).returncode == 0

    signed = sign_image(plain, keys_of(folder).db)
    assert verified(signed, "db")
    assert not verified(signed, "KEK")
    assert not verified(plain, "db")
    for offset in (pe.HEADER_SIZE, pe.DOS.size + 8, len(plain) - 1, len(signed) - 100):
        changed = bytearray(signed)
        changed[offset] ^= 1
        assert not verified(bytes(changed), "db"), hex(offset)


def test_a_signed_file_is_the_same_file_with_a_certificate_table(folder: Path, plain: bytes) -> None:
    """Nothing else differs but checksum and directory entry, the checksum is right, and signing again gives the same bytes."""
    db = keys_of(folder).db
    signed = sign_image(plain, db)
    assert signed == sign_image(plain, db)
    offset, size = struct.unpack_from("<II", signed, CERTIFICATE_DIRECTORY)
    assert offset % 8 == 0
    assert offset + size == len(signed)
    before = bytearray(plain.ljust(offset, b"\0"))
    after = bytearray(signed[:offset])
    for file in (before, after):
        file[pe.CHECKSUM_OFFSET : pe.CHECKSUM_OFFSET + 4] = bytes(4)
        file[CERTIFICATE_DIRECTORY : CERTIFICATE_DIRECTORY + 8] = bytes(8)
    assert before == after
    assert struct.unpack_from("<I", signed, pe.CHECKSUM_OFFSET)[0] == pe.checksum(
        signed[: pe.CHECKSUM_OFFSET] + bytes(4) + signed[pe.CHECKSUM_OFFSET + 4 :]
    )


@pytest.mark.skipif(OPENSSL is None, reason="openssl is missing")
def test_openssl_takes_the_detached_signature(folder: Path, tmp_path: Path) -> None:
    """PKCS #7 without signed attributes over the very bytes."""
    keys = keys_of(folder)
    content = tmp_path / "content"
    content.write_bytes(b"some bytes\r\nwith a line end")
    # firmware takes a bare SignedData; openssl wants it in a ContentInfo
    from pipeline import der
    from pipeline.authenticode import SIGNED_DATA, sequence

    whole = sequence(SIGNED_DATA, der.element(0xA0, detached(keys.kek, content.read_bytes())))
    (tmp_path / "signature").write_bytes(whole)
    command = [str(OPENSSL), "smime", "-verify", "-binary", "-inform", "DER", "-in", str(tmp_path / "signature")]
    command += ["-content", str(content), "-CAfile", str(folder / "KEK.crt"), "-purpose", "any", "-out", "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    content.write_bytes(b"other bytes")
    assert subprocess.run(command, capture_output=True).returncode != 0


def test_the_enrolment_files_hold_the_keys(folder: Path) -> None:
    """A certificate in DER, and a signed change around the same certificate, for each of the three."""
    keys = keys_of(folder)
    files = secure_boot.enrolment_files(keys)
    assert sorted(files) == sorted(
        f"EFI/TERRANE/{name}.{kind}" for name in ("PK", "KEK", "DB") for kind in ("AUT", "CER")
    )
    for name, _, held, _ in keys.chain():
        certificate = x509.load_der_x509_certificate(files[f"EFI/TERRANE/{name.upper()}.CER"])
        assert certificate == held.certificate
        assert files[f"EFI/TERRANE/{name.upper()}.AUT"].endswith(certificate.public_bytes(Encoding.DER))


def test_keys_are_made_once(folder: Path) -> None:
    """A second time they are read."""
    assert [signer.der() for _, _, signer, _ in secure_boot.make(folder).chain()] == [
        signer.der() for _, _, signer, _ in keys_of(folder).chain()
    ]
    assert secure_boot.load(folder / "none") is None


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "KEK.key").unlink(), "KEK.key: expected a key made by `keys --secure-boot`"),
        (lambda folder: (folder / "db.key").chmod(0o644), "expected mode 0600, found 0644"),
        (lambda folder: (folder / "db.key").write_text("-----BEGIN"), "expected a PEM key and its certificate"),
        (lambda folder: shutil.copyfile(folder / "PK.crt", folder / "db.crt"), "found another's"),
    ],
)
def test_damaged_keys_are_refused(folder: Path, tmp_path: Path, damage: object, reason: str) -> None:
    """A file that is missing, readable by others, no key, or the certificate of another."""
    copy = tmp_path / "keys"
    shutil.copytree(folder, copy)
    damage(copy)  # type: ignore[operator]
    with pytest.raises(UsageError, match=reason):
        secure_boot.load(copy)
