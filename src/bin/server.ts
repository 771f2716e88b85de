/** Composition of `tulle server`: store, certificates, API server and controllers in one process. */
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { hostname, networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { type RawOptions, type ServerOptions, serverOptions } from '#cli/options.ts';
import type { ClientConfig } from '#client/config.ts';
import { createApiClient } from '#client/http-client.ts';
import { parseJoinToken } from '#client/join-token.ts';
import { writeKubeconfig } from '#client/kubeconfig.ts';
import { startRenewal } from '#client/renewal.ts';
import { startControllers } from '#control/controllers.ts';
import { writeFileAtomic } from '#lib/atomic-file.ts';
import { systemClock } from '#lib/clock.ts';
import { UserError } from '#lib/errors.ts';
import { cidrAddress, familyOf, type Ip, ip, parseIp } from '#lib/ip.ts';
import { createLogger } from '#lib/log.ts';
import { inheritedSockets } from '#proc/socket-activation.ts';
import { type ClusterConfiguration, checkConfiguration } from '#server/configuration.ts';
import { type Ca, openCa } from '#server/pki/ca.ts';
import { takeGivenCa } from '#server/pki/given-ca.ts';
import { issueClientCertificate, issueServerCertificate } from '#server/pki/issue.ts';
import { createJoinHandler } from '#server/pki/join.ts';
import { startTokenCleaner } from '#server/pki/token-cleaner.ts';
import { createToken, createTokenHandler } from '#server/pki/tokens.ts';
import { startApiServer } from '#server/server.ts';
import { openSigningKey } from '#server/tokens/signing-key.ts';
import type { Store } from '#store/port.ts';
import { keepHeapSmall } from './server-memory.ts';
import { controlByTurns, openServerStore, sharePki } from './shared-store.ts';

/** The tenth address of a service range is the DNS service's, as every Kubernetes installer chooses it. */
const DNS_ORDINAL = 10;
/** The first one is the API server's own service (`kubernetes.default`). */
const API_ORDINAL = 1;
const KUBECONFIG_FILE = 'admin.kubeconfig';
const JOIN_TOKEN_FILE = 'join-token';

/** Runs until the signal is aborted. @throws UserError */
export async function runServer(
  flags: RawOptions,
  configFile: string | undefined,
  signal: AbortSignal,
): Promise<void> {
  keepHeapSmall();
  const options = serverOptions(flags, configFile);
  const configuration = clusterConfiguration(options);
  checkConfiguration(configuration);
  const log = createLogger({ level: options.logLevel });
  const advertise = options.advertise ?? advertisedAddress(options.listen.host);
  const { dataDirectory } = options;
  await using stack = new AsyncDisposableStack();
  // First, because it is the lock: whoever else uses this directory keeps us from touching anything in it.
  const store = stack.use(await openServerStore(options, log));
  const pki = join(dataDirectory, 'pki');
  if (options.ca !== undefined) {
    const taken = await takeGivenCa(options.ca, { directory: pki });
    log.info(
      { taken, certificate: options.ca.certificateFile },
      'the certificate authority is given',
    );
  }
  if (options.etcd !== undefined)
    await sharePki(store, pki, { etcd: options.etcd, replacesCa: options.ca?.replaces ?? false });
  const ca = await openCa({ directory: pki });
  const newCertificate = () =>
    serverCertificate(ca, configuration, [advertise, ...listenedAddresses(options.listen.host)]);
  const certificate = await newCertificate();
  const server = await startApiServer({
    store,
    isStoreShared: options.etcd !== undefined,
    pki: {
      serverCertificatePem: certificate.certificatePem,
      serverKeyPem: certificate.keyPem,
      caCertificatesPem: [ca.issuingPem],
      caParentsPem: [ca.shownPem, ca.certificatePem],
      signingKey: openSigningKey({ directory: pki }),
    },
    forgetTokenKeys: options.forgetTokenKeys,
    listen: options.listen,
    inherited: inheritedSockets(),
    ...(isLoopback(advertise)
      ? {} // Good for a try on one machine; no pod could reach it.
      : { advertise: { address: advertise, port: options.listen.port } }),
    configuration,
    // What clients trust, which may be above what signs.
    caHandler: async () => ca.certificatePem,
    joinHandler: createJoinHandler({ ca, store }),
    tokenHandler: createTokenHandler({ ca, store }),
    log,
  });
  stack.use(server);

  const url = `https://${familyOf(advertise) === 6 ? `[${advertise}]` : advertise}:${server.address.port}`;
  await keepJoinToken(store, ca, dataDirectory);
  stack.use(startTokenCleaner({ store, log }));
  const giveAdmin = async () => {
    const admin = await masterConfig(ca, url, 'tulle:admin');
    writeKubeconfig(join(dataDirectory, KUBECONFIG_FILE), admin, { name: 'tulle' });
  };
  await giveAdmin();
  const local = `https://${localHost(options.listen.host)}:${server.address.port}`;
  // Under a name of their own, so that an administrator's scripts do not take the controllers' turns.
  const client = stack.use(createApiClient(await masterConfig(ca, local, 'tulle:controllers')));
  stack.use(
    startRenewal({
      ...{ what: 'the server', certificatePem: certificate.certificatePem, log },
      clock: systemClock,
      // All of them were made at the start: they would run out together.
      async renew() {
        const next = await newCertificate();
        client.useCertificate(await issueMaster(ca, 'tulle:controllers'));
        await giveAdmin();
        server.useCertificate(next);
        return next.certificatePem;
      },
    }),
  );
  if (options.etcd === undefined) stack.use(startControllers({ client, log }));
  else stack.use(controlByTurns(client, log));
  log.info(
    {
      url,
      kubeconfig: join(dataDirectory, KUBECONFIG_FILE),
      joinToken: join(dataDirectory, JOIN_TOKEN_FILE),
    },
    'the server is ready',
  );
  if (!signal.aborted) await once(signal, 'abort');
  log.info({}, 'the server stops; agents and traffic go on without it');
}

function clusterConfiguration(options: ServerOptions): ClusterConfiguration {
  return {
    serviceCidrs: options.serviceCidrs,
    nodePortRange: options.nodePortRange,
    dnsServiceIps: options.serviceCidrs.map((range) => cidrAddress(range, DNS_ORDINAL)),
    pools: options.podCidrs.map((cidr) => ({ name: `default-ipv${familyOf(cidr)}`, cidr })),
    clusterDomain: options.clusterDomain,
  };
}

async function serverCertificate(
  ca: Ca,
  configuration: ClusterConfiguration,
  addresses: readonly Ip[],
): Promise<{ certificatePem: string; keyPem: string }> {
  const service = 'kubernetes.default';
  return issueServerCertificate(ca, {
    commonName: 'tulle-server',
    names: [
      ...['localhost', hostname().toLowerCase(), 'kubernetes', service],
      ...[`${service}.svc`, `${service}.svc.${configuration.clusterDomain}`],
    ],
    ips: [
      ...[ip('127.0.0.1'), ip('::1')],
      ...addresses,
      ...configuration.serviceCidrs.map((range) => cidrAddress(range, API_ORDINAL)),
    ],
  });
}

async function masterConfig(ca: Ca, server: string, name: string): Promise<ClientConfig> {
  return { servers: [server], caPem: ca.certificatePem, ...(await issueMaster(ca, name)) };
}

async function issueMaster(
  ca: Ca,
  commonName: string,
): Promise<{ certificatePem: string; keyPem: string }> {
  const organizations = ['system:masters'];
  const issued = await issueClientCertificate(ca, { commonName, organizations });
  return { certificatePem: issued.certificatePem, keyPem: issued.keyPem };
}

/** The first start leaves a token that does not expire, for whoever may read the data directory; it can be revoked. */
async function keepJoinToken(store: Store, ca: Ca, directory: string): Promise<void> {
  const path = join(directory, JOIN_TOKEN_FILE);
  if (existsSync(path)) {
    // The token of another authority, which was replaced, lets nobody in.
    const { caFingerprint } = parseJoinToken(readFileSync(path, 'utf8'));
    if (caFingerprint === ca.fingerprint) return;
  }
  const { text } = await createToken(store, {
    caFingerprint: ca.fingerprint,
    description: 'made by the server at its first start',
    ttlMs: undefined,
  });
  writeFileAtomic(path, `${text}\n`, { mode: 0o600 });
}

/** Where others reach a server that listens everywhere. */
function advertisedAddress(listenHost: string): Ip {
  const [first] = listenedAddresses(listenHost);
  if (first !== undefined) return first;
  throw new UserError('This machine has no address that nodes could reach the server at', {
    hint: 'Give it one, or say which with --advertise-address.',
  });
}

/** Where a server is reached: its address, or those of the machine if it listens everywhere. */
function listenedAddresses(listenHost: string): Ip[] {
  const listen = parseIp(listenHost);
  if (listen !== undefined && listen !== '0.0.0.0' && listen !== '::') return [listen];
  return Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(({ address, internal }) => !internal && !address.startsWith('fe80:'))
    .flatMap(({ address }) => parseIp(address) ?? [])
    .filter((address) => listen !== '0.0.0.0' || familyOf(address) === 4);
}

function isLoopback(address: Ip): boolean {
  return address.startsWith('127.') || address === '::1';
}

function localHost(listenHost: string): string {
  if (listenHost === '0.0.0.0') return '127.0.0.1';
  if (listenHost === '::') return '[::1]';
  return listenHost.includes(':') ? `[${listenHost}]` : listenHost;
}
