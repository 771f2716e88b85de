/**
 * Programs in Go read a field whose name differs in upper and lower case only, and so some write what they have as it is
 * called in Go: containerd passes port mappings with `HostPort`, not `hostPort`.
 */
type Json = Readonly<Record<string, unknown>>;

/** @returns the object with those fields under exactly these names; of several that differ in case the last, as in Go */
export function nameAsGo(json: Json, names: readonly string[]): Json {
  const byLowerCase = new Map(names.map((name) => [name.toLowerCase(), name]));
  return Object.fromEntries(
    Object.entries(json).map(([key, value]) => [byLowerCase.get(key.toLowerCase()) ?? key, value]),
  );
}
