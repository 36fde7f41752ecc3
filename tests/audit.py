"""What the installation is made of, under which licences, and what is known against it: `make audit`.

Writes into the folder `audit`: `sbom.cdx.json` (CycloneDX), `licences.json`, `vulnerabilities.json`. Exit status 1 when
something is known against a package, 3 when the advisory service could not be asked: then nothing is known either
way."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "audit"
TOOLS = ROOT / ".tools" / "audit" / "bin"
OURS = Path(sys.executable)
UNKNOWN = 3
# Of licences whose conditions reach who links to a package, not only who changes it.
_COPYLEFT = ("GPL-2", "GPL-3", "AGPL", "GNU General Public License", "GNU Affero")


def tool(*argv: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(TOOLS / argv[0]), *argv[1:]], capture_output=True, text=True, check=False, cwd=ROOT)


def sbom() -> int:
    """Components written down."""
    path = FOLDER / "sbom.cdx.json"
    made = tool(
        "cyclonedx-py",
        "environment",
        str(OURS),
        "--pyproject",
        "pyproject.toml",
        "--output-reproducible",
        "-o",
        str(path),
    )
    if made.returncode:
        raise RuntimeError(f"cyclonedx-py: {made.stderr.strip()[-2000:]}")
    document = json.loads(path.read_text())
    assert document["bomFormat"] == "CycloneDX"
    return len(document["components"])


def licences() -> "Counter[str]":
    """Packages by licence."""
    made = tool("pip-licenses", "--python", str(OURS), "--from", "mixed", "--with-urls", "--format", "json")
    if made.returncode:
        raise RuntimeError(f"pip-licenses: {made.stderr.strip()[-2000:]}")
    found = json.loads(made.stdout)
    (FOLDER / "licences.json").write_text(json.dumps(found, indent=1) + "\n")
    for package in found:
        text = package["License"]
        if (
            any(word in text for word in _COPYLEFT)
            and "LGPL" not in text
            and "Lesser" not in text
            and " OR " not in text
        ):
            print(f"  copyleft: {package['Name']} {package['Version']}: {text}")
    return Counter(package["License"] for package in found)


def vulnerabilities() -> "tuple[list[str], list[str]] | None":
    """What is known against exactly the versions of the lock file, and the packages of which nothing could be learnt;
    None when nobody could be asked at all."""
    made = tool(
        "pip-audit", "--requirement", "requirements.lock", "--require-hashes", "--disable-pip", "--no-deps", "--format",
        "json", "--progress-spinner", "off", "--timeout", "10",
    )  # fmt: skip
    try:
        packages = json.loads(made.stdout)["dependencies"]
    except (ValueError, KeyError):
        (FOLDER / "vulnerabilities.json").unlink(missing_ok=True)
        print("  pip-audit said: " + (made.stderr.strip().splitlines() or ["nothing"])[-1][:300])
        return None
    (FOLDER / "vulnerabilities.json").write_text(json.dumps(packages, indent=1) + "\n")
    known = [
        f"{package['name']} {package['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'none'}"
        for package in packages
        for found in package.get("vulns", [])
    ]
    return known, [package["name"] for package in packages if "skip_reason" in package]


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    print(f"components: {sbom()}, in audit/sbom.cdx.json")
    counted = licences()
    print(f"licences: {len(counted)} of {counted.total()} packages, in audit/licences.json")
    found = vulnerabilities()
    if found is None:
        print("NOT AUDITED: the advisory service cannot be reached from here, so nothing is known of vulnerabilities.")
        return UNKNOWN
    known, skipped = found
    for line in known:
        print(f"  vulnerable: {line}")
    print(f"vulnerabilities: {len(known)}, in audit/vulnerabilities.json")
    if skipped:  # a package index without advisories says of each that it does not know it
        few = f"{len(skipped)} packages ({', '.join(skipped[:3])}, …)"
        print(f"NOT AUDITED: the advisory service that is reached from here knows nothing of {few}.")
    return 1 if known else UNKNOWN if skipped else 0


if __name__ == "__main__":
    sys.exit(main())
