/**
 * Where a client's configuration comes from: a kubeconfig file, or the service account of the pod it runs in.
 * The format is that of `k8s.io/client-go/tools/clientcmd/api/v1`, so that kubectl reads what we write and the other
 * way round.
 */
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, dirname, isAbsolute, join, resolve } from 'node:path';
import { parse, stringify } from 'yaml';
import { writeFileAtomic } from '#lib/atomic-file.ts';
import { explainError, UserError } from '#lib/errors.ts';
import type { ClientConfig } from './config.ts';

/** Clusters may name more servers than the one that the format has room for; other programs pass over this. */
const SERVERS_EXTENSION = 'tulle.dev/servers';
/** A kubeconfig with inline certificates of a thousand clusters has 5 MB. */
const MAX_FILE_BYTES = 16 * 1024 * 1024;

interface Named<T> {
  readonly name: string;
  readonly value: T;
  /** The file it stands in: relative paths are relative to its directory. */
  readonly file: string;
}

type Fields = Readonly<Record<string, unknown>>;

interface Kubeconfig {
  readonly files: readonly string[];
  readonly currentContext: string | undefined;
  readonly clusters: readonly Named<Fields>[];
  readonly users: readonly Named<Fields>[];
  readonly contexts: readonly Named<Fields>[];
}

/**
 * The configuration of a context.
 *
 * Looks at `path`, else at `$KUBECONFIG` (several files are merged: the first to name something wins), else at
 * `~/.kube/config`.
 * @param options `context`: another than the current one
 * @throws UserError that says which file and entry is wrong; also for users who log in by running a program
 */
export function loadKubeconfig(
  options: {
    path?: string;
    context?: string;
    env?: Readonly<Record<string, string | undefined>>;
  } = {},
): ClientConfig {
  const { path, env = process.env } = options;
  const config = readFiles(path === undefined ? defaultFiles(env) : [path], path !== undefined);
  const contextName = options.context ?? config.currentContext;
  const where = config.files.join(', ');
  if (contextName === undefined)
    throw new UserError(`${where}: no context is selected`, {
      hint: `Name one with --context: ${namesOf(config.contexts)}.`,
    });
  const context = entryOf(config, 'contexts', contextName);
  const cluster = entryOf(config, 'clusters', textOf(context, 'cluster') ?? '');
  const userName = textOf(context, 'user') ?? '';
  const user = userName === '' ? undefined : entryOf(config, 'users', userName);
  const namespace = textOf(context, 'namespace');
  return {
    ...clusterConfig(cluster),
    ...(user === undefined ? {} : userConfig(user)),
    ...(namespace === undefined ? {} : { namespace }),
  };
}

/**
 * The configuration of the service account that a pod in Kubernetes runs as.
 * @param options `directory`: where its secret is mounted
 * @throws UserError outside of a pod
 */
export function inClusterConfig(
  options: { env?: Readonly<Record<string, string | undefined>>; directory?: string } = {},
): ClientConfig {
  const { env = process.env, directory = '/var/run/secrets/kubernetes.io/serviceaccount' } =
    options;
  const host = env.KUBERNETES_SERVICE_HOST;
  const port = env.KUBERNETES_SERVICE_PORT;
  const tokenFile = join(directory, 'token');
  if (!host || !port || !existsSync(tokenFile))
    throw new UserError(
      `Cannot find the service account of a pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT or the file ${tokenFile} are missing`,
      { hint: 'Name a kubeconfig with --kubeconfig when running outside of a cluster.' },
    );
  const namespaceFile = join(directory, 'namespace');
  return {
    servers: [`https://${host.includes(':') ? `[${host}]` : host}:${port}`],
    caPem: readText(join(directory, 'ca.crt')),
    tokenFile,
    ...(existsSync(namespaceFile) ? { namespace: readText(namespaceFile).trim() } : {}),
  };
}

/**
 * Writes a kubeconfig with one context, all inline, readable for its owner only; replaces a file at once or not at all.
 * @param options `name`: of the cluster, user and context
 * @throws UserError if the file cannot be written
 */
export function writeKubeconfig(
  path: string,
  config: ClientConfig,
  options: { name?: string; userName?: string } = {},
): void {
  try {
    mkdirSync(dirname(path), { recursive: true });
    writeFileAtomic(path, formatKubeconfig(config, options), { mode: 0o600 });
  } catch (cause) {
    throw new UserError(`Cannot write the kubeconfig ${path}: ${explainError(cause)}`, { cause });
  }
}

/** The text of a kubeconfig with one context. */
export function formatKubeconfig(
  config: ClientConfig,
  options: { name?: string; userName?: string } = {},
): string {
  const { name = 'tulle', userName = `${name}-admin` } = options;
  const [server, ...others] = config.servers;
  const cluster = defined({
    server,
    'certificate-authority-data': base64(config.caPem),
    'tls-server-name': config.tlsServerName,
    'insecure-skip-tls-verify': config.insecureSkipTlsVerify,
    extensions:
      others.length === 0
        ? undefined
        : [{ name: SERVERS_EXTENSION, extension: { servers: config.servers } }],
  });
  const user = defined({
    'client-certificate-data': base64(config.certificatePem),
    'client-key-data': base64(config.keyPem),
    token: config.token,
    tokenFile: config.tokenFile,
  });
  const context = defined({ cluster: name, user: userName, namespace: config.namespace });
  return stringify(
    {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name, cluster }],
      users: [{ name: userName, user }],
      contexts: [{ name, context }],
      'current-context': name,
    },
    { lineWidth: 0 },
  );
}

function defaultFiles(env: Readonly<Record<string, string | undefined>>): string[] {
  const listed = (env.KUBECONFIG ?? '').split(delimiter).filter((file) => file !== '');
  return listed.length > 0 ? listed : [join(env.HOME ?? homedir(), '.kube', 'config')];
}

/** @param isRequired whether a file that is missing is a mistake, or only one place of several to look at */
function readFiles(files: readonly string[], isRequired: boolean): Kubeconfig {
  const present = isRequired ? files : files.filter((file) => existsSync(file));
  if (present.length === 0)
    throw new UserError(`There is no kubeconfig at ${files.join(', ')}`, {
      hint: 'Name one with --kubeconfig or in the environment variable KUBECONFIG.',
    });
  const documents = present.map((file) => ({ file, fields: readFile(file) }));
  const all = (list: string, key: string) =>
    documents.flatMap(({ file, fields }) => entriesIn(file, fields, list, key));
  return {
    files: present,
    currentContext: documents
      .map(({ fields }) => textOf({ value: fields }, 'current-context'))
      .find((name) => name !== undefined && name !== ''),
    clusters: all('clusters', 'cluster'),
    users: all('users', 'user'),
    contexts: all('contexts', 'context'),
  };
}

function readFile(file: string): Fields {
  const text = readText(file);
  if (text.length > MAX_FILE_BYTES)
    throw new UserError(`${file}: a kubeconfig is not longer than ${MAX_FILE_BYTES} bytes`);
  let document: unknown;
  try {
    document = parse(text);
  } catch (cause) {
    throw new UserError(`${file}: ${explainError(cause)}`, { cause });
  }
  if (document === null || document === undefined) return {};
  if (!isFields(document)) throw new UserError(`${file}: this is no kubeconfig`);
  return document;
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new UserError(`Cannot read ${file}: ${explainError(cause)}`, { cause });
  }
}

function entriesIn(file: string, fields: Fields, list: string, key: string): Named<Fields>[] {
  const entries = fields[list] ?? [];
  if (!Array.isArray(entries)) throw new UserError(`${file}: ${list} is not a list`);
  return entries.map((entry: unknown, i) => {
    const name = isFields(entry) ? entry.name : undefined;
    const value = isFields(entry) ? (entry[key] ?? {}) : undefined;
    if (typeof name !== 'string' || !isFields(value))
      throw new UserError(`${file}: ${list}[${i}] needs a name and a ${key}`);
    return { name, value, file };
  });
}

function entryOf(
  config: Kubeconfig,
  list: 'clusters' | 'users' | 'contexts',
  name: string,
): Named<Fields> {
  const entry = config[list].find((candidate) => candidate.name === name);
  if (entry !== undefined) return entry;
  throw new UserError(
    `${config.files.join(', ')}: there is no "${name}" in ${list}, which has ${namesOf(config[list])}`,
  );
}

function clusterConfig(cluster: Named<Fields>): ClientConfig {
  const where = `${cluster.file}: cluster "${cluster.name}"`;
  const servers = serversExtension(cluster.value) ?? [textOf(cluster, 'server') ?? ''];
  for (const server of servers)
    if (!/^https?:\/\//.test(server) || !URL.canParse(server))
      throw new UserError(`${where}: "${server}" is not the URL of a server`, {
        hint: 'Write it as https://HOST:PORT.',
      });
  if (textOf(cluster, 'proxy-url') !== undefined)
    throw new UserError(`${where}: proxy-url is not supported`);
  const caPem = pemOf(cluster, 'certificate-authority');
  const tlsServerName = textOf(cluster, 'tls-server-name');
  return {
    servers,
    ...(caPem === undefined ? {} : { caPem }),
    ...(tlsServerName === undefined ? {} : { tlsServerName }),
    ...(cluster.value['insecure-skip-tls-verify'] === true ? { insecureSkipTlsVerify: true } : {}),
  };
}

/** How a user logs in that we do not do: by running a program, by a plug-in, by a password, as somebody else. */
const UNSUPPORTED_LOGINS = ['exec', 'auth-provider', 'username', 'password', 'as'];

function userConfig(user: Named<Fields>): Partial<ClientConfig> {
  const where = `${user.file}: user "${user.name}"`;
  const login = UNSUPPORTED_LOGINS.find((field) => user.value[field] !== undefined);
  if (login !== undefined)
    throw new UserError(`${where} logs in by "${login}", which is not supported`, {
      hint: 'Use a user with a client certificate or a token.',
    });
  const certificatePem = pemOf(user, 'client-certificate');
  const keyPem = pemOf(user, 'client-key');
  if ((certificatePem === undefined) !== (keyPem === undefined))
    throw new UserError(`${where} needs both or none of client-certificate and client-key`);
  const token = textOf(user, 'token');
  const tokenFile = textOf(user, 'tokenFile');
  return {
    ...(certificatePem === undefined ? {} : { certificatePem }),
    ...(keyPem === undefined ? {} : { keyPem }),
    ...(token === undefined ? {} : { token }),
    ...(tokenFile === undefined ? {} : { tokenFile: pathIn(user, tokenFile) }),
  };
}

/** `<field>-data` in base64, or else the file that `<field>` names. */
function pemOf(entry: Named<Fields>, field: string): string | undefined {
  const data = textOf(entry, `${field}-data`);
  if (data !== undefined && data !== '') {
    const pem = Buffer.from(data, 'base64').toString('utf8');
    if (pem.includes('-----BEGIN ')) return pem;
    throw new UserError(`${entry.file}: ${field}-data of "${entry.name}" is no PEM in base64`);
  }
  const file = textOf(entry, field);
  return file === undefined || file === '' ? undefined : readText(pathIn(entry, file));
}

function serversExtension(cluster: Fields): string[] | undefined {
  const extensions = cluster.extensions;
  if (!Array.isArray(extensions)) return undefined;
  const ours: unknown = extensions.find((e) => isFields(e) && e.name === SERVERS_EXTENSION);
  const extension = isFields(ours) ? ours.extension : undefined;
  const servers = isFields(extension) ? extension.servers : undefined;
  const isList = Array.isArray(servers) && servers.length > 0;
  return isList && servers.every((s) => typeof s === 'string') ? servers : undefined;
}

function pathIn(entry: Named<Fields>, path: string): string {
  return isAbsolute(path) ? path : resolve(dirname(entry.file), path);
}

function textOf(entry: { value: Fields }, field: string): string | undefined {
  const value = entry.value[field];
  return typeof value === 'string' ? value : undefined;
}

function namesOf(entries: readonly Named<Fields>[]): string {
  return entries.length === 0 ? 'none' : entries.map(({ name }) => `"${name}"`).join(', ');
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function base64(text: string | undefined): string | undefined {
  return text === undefined ? undefined : Buffer.from(text).toString('base64');
}

function defined(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}
