"""The release chain as the verifier holds it to the reference: root -> boot -> VMM -> box, made offline by the build."""

from __future__ import annotations

import hashlib

from cryptography import x509

from pipeline import der, release
from pipeline.reference import LayerReference, Reference
from pipeline.verify_certificates import (
    Node,
    VerificationError,
    check_signature,
    ed25519_key,
    parse_certificate,
    require,
)


def verify_release_chain(
    links: list[bytes], reference: Reference, box: LayerReference | None, nodes: list[Node]
) -> None:
    """Root -> boot -> VMM -> box: each signed by the one before, each naming what was built. `box` None: it ends at the VMM.

    Each link is added to `nodes` once it is verified.
    """
    version = reference.security_version
    expected = [
        release.Release(release.ROOT_LAYER, b"", version),
        release.Release(release.BOOT_LAYER, bytes.fromhex(reference.loader_sha256), version),
        release.Release(release.MONITOR_LAYER, bytes.fromhex(reference.monitor.sha256), version),
    ]
    if box is not None:
        expected.append(release.Release(release.box_layer(box.name), bytes.fromhex(box.sha256), version))
    parent: x509.Certificate | None = None
    for depth, (data, wanted) in enumerate(zip(links, expected, strict=True)):
        layer = f"release: {wanted.layer}"
        parsed = parse_certificate(layer, data)
        if parent is None:
            require(layer, "fingerprint", reference.release_root, hashlib.sha256(data).hexdigest())
        signer = parent or parsed
        check_signature(layer, parsed, ed25519_key(layer, signer), "itself" if parent is None else nodes[-1].layer)
        check_release_certificate(layer, parsed, signer, wanted, 3 - depth)
        key = ed25519_key(layer, parsed).public_bytes_raw().hex()
        by = "itself" if parent is None else nodes[-1].layer
        compared = "the root's fingerprint in the reference" if parent is None else "the hash of what was built"
        nodes.append(Node(layer, wanted.sha256.hex(), key, "release", by, depth, compared))
        parent = parsed


def check_release_certificate(
    layer: str, parsed: x509.Certificate, signer: x509.Certificate, wanted: release.Release, below: int
) -> None:
    """Names, usage and the release extension of one link; `below` certificates follow it."""
    require(layer, "subject", release.name_of(wanted.layer).rfc4514_string(), parsed.subject.rfc4514_string())
    require(layer, "issuer", signer.subject.rfc4514_string(), parsed.issuer.rfc4514_string())
    try:
        constraints = parsed.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = parsed.extensions.get_extension_for_class(x509.KeyUsage).value
        named = parsed.extensions.get_extension_for_oid(release.RELEASE_EXTENSION).value
    except x509.ExtensionNotFound as error:
        raise VerificationError(layer, f"extension {error.oid.dotted_string}", "present", "absent") from None
    require(layer, "basic constraints: CA", below > 0, constraints.ca)
    require(layer, "basic constraints: path length", below - 1 if below else None, constraints.path_length)
    require(layer, "key usage: keyCertSign", below > 0, usage.key_cert_sign)
    assert isinstance(named, x509.UnrecognizedExtension)
    try:
        found = release.parse_release(named.value)
    except der.DerError as error:
        raise VerificationError(layer, "release extension", "strict DER", error) from None
    require(layer, "layer", wanted.layer, found.layer)
    require(layer, "SHA-256", wanted.sha256.hex(), found.sha256.hex())
    require(layer, "security version", wanted.security_version, found.security_version)
    allowed = {"2.5.29.35", "2.5.29.14", "2.5.29.15", "2.5.29.19", release.RELEASE_EXTENSION.dotted_string}
    extra = sorted(
        extension.oid.dotted_string for extension in parsed.extensions if extension.oid.dotted_string not in allowed
    )
    require(layer, "further extensions", [], extra)
