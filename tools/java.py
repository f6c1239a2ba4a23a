"""Find Java 17 or 21 for Spark, install it where allowed, and print its home.

Only Spark proper needs it: the embedded engine does not. The home goes to standard output, all
else to standard error, so that a recipe can say JAVA_HOME=$(python tools/java.py).
"""

import glob
import os
import re
import shutil
import subprocess
import sys

import platform_packages

SUPPORTED = (17, 21)
PACKAGES = {
    "apt-get": ["openjdk-17-jre-headless", "openjdk-21-jre-headless"],
    "dnf": ["java-17-openjdk-headless", "java-21-openjdk-headless"],
    "apk": ["openjdk17-jre-headless", "openjdk21-jre-headless"],
    "zypper": ["java-17-openjdk-headless", "java-21-openjdk-headless"],
    "pacman": ["jre17-openjdk-headless", "jre21-openjdk-headless"],
    "brew": ["openjdk@17", "openjdk@21"],
}
PLACES = (
    "/usr/lib/jvm/*",
    "/opt/java/*",
    "/opt/homebrew/opt/openjdk@*/libexec/openjdk.jdk/Contents/Home",
    "/usr/local/opt/openjdk@*/libexec/openjdk.jdk/Contents/Home",
    "/Library/Java/JavaVirtualMachines/*/Contents/Home",
)


def major(home):
    """Return the major version of the Java in a home folder, or None where there is none."""
    try:
        done = subprocess.run([os.path.join(home, "bin", "java"), "-version"], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, universal_newlines=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(\d+)', done.stdout)
    return int(found.group(1)) if found else None


def homes():
    """Yield folders that may hold a Java: JAVA_HOME, the one on PATH, then the usual places."""
    if os.environ.get("JAVA_HOME"):
        yield os.environ["JAVA_HOME"]
    on_path = shutil.which("java")
    if on_path:
        yield os.path.dirname(os.path.dirname(os.path.realpath(on_path)))
    for place in PLACES:
        yield from sorted(glob.glob(place))


def find():
    """Return the first home with a supported Java, or None, and the versions met on the way."""
    met = []
    for home in homes():
        version = major(home)
        if version in SUPPORTED:
            return home, met
        if version:
            met.append(version)
    return None, met


def main():
    home, met = find()
    if home is None:
        seen = "Java %s is here, but " % ", ".join(map(str, sorted(set(met)))) if met else ""
        print("==> %sSpark needs Java 17 or 21" % seen, file=sys.stderr)
        if platform_packages.install("Java", PACKAGES):
            home, met = find()
    if home is None:
        sys.exit(
            "error: Spark needs Java 17 or 21, and none could be installed from here. "
            + platform_packages.advice(PACKAGES, "Install one (any vendor) and set JAVA_HOME.")
            + " (`make demo` without ENGINE=spark needs no Java.)"
        )
    print(home)


if __name__ == "__main__":
    main()
