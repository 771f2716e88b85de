/** The DNS servers we are compared with, each serving the same names on one thread. */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface PeerSetup {
  readonly folder: string;
  readonly port: number;
  readonly upstreamPort: number;
  readonly names: readonly { readonly name: string; readonly address: string }[];
}

export interface Peer {
  readonly name: string;
  readonly debian: string;
  /** Writes its configuration. @returns the command that runs it in the foreground */
  readonly command: (setup: PeerSetup) => string[];
}

export const PEERS: readonly Peer[] = [
  {
    name: 'unbound',
    debian: 'unbound',
    command: ({ folder, port, upstreamPort, names }) => {
      const file = join(folder, 'unbound.conf');
      const data = names.map(({ name, address }) => `local-data: "${name} 5 A ${address}"`);
      writeFileSync(
        file,
        `server:
 interface: 127.0.0.1@${port}
 do-not-query-localhost: no
 num-threads: 1
 username: ""
 chroot: ""
 directory: "${folder}"
 pidfile: ""
 use-syslog: no
 module-config: "iterator"
 msg-cache-size: 32m
 rrset-cache-size: 64m
 local-zone: "cluster.local." static
 ${data.join('\n ')}
remote-control:
 control-enable: no
forward-zone:
 name: "."
 forward-addr: 127.0.0.1@${upstreamPort}
`,
      );
      return ['unbound', '-d', '-c', file];
    },
  },
  {
    name: 'dnsmasq',
    debian: 'dnsmasq-base',
    command: ({ folder, port, upstreamPort, names }) => {
      const hosts = join(folder, 'dnsmasq.hosts');
      writeFileSync(hosts, names.map(({ name, address }) => `${address} ${name}\n`).join(''));
      return [
        ...['dnsmasq', '--keep-in-foreground', '--conf-file=/dev/null', '--no-hosts'],
        ...['--no-resolv', '--user=root', '--pid-file=', '--bind-interfaces', '--log-facility=-'],
        ...['--listen-address=127.0.0.1', `--port=${port}`, `--addn-hosts=${hosts}`],
        ...[`--server=127.0.0.1#${upstreamPort}`, '--local=/cluster.local/'],
        ...['--cache-size=10000', '--dns-forward-max=1000'],
      ];
    },
  },
  {
    name: 'bind',
    debian: 'bind9',
    command: ({ folder, port, upstreamPort, names }) => {
      const zone = join(folder, 'zone');
      const records = names.map(({ name, address }) => `${name}. A ${address}`);
      writeFileSync(
        zone,
        `$TTL 5\n@ SOA ns.dns hostmaster 1 7200 1800 86400 5\n@ NS ns.dns\nns.dns A 127.0.0.1\n${records.join('\n')}\n`,
      );
      const file = join(folder, 'named.conf');
      writeFileSync(
        file,
        `options { directory "${folder}"; listen-on port ${port} { 127.0.0.1; }; listen-on-v6 { none; };
 pid-file none; session-keyfile none; recursion yes; dnssec-validation no; minimal-responses yes;
 forward only; forwarders { 127.0.0.1 port ${upstreamPort}; }; };
controls { };
zone "cluster.local" { type primary; file "${zone}"; };
`,
      );
      return ['named', '-f', '-n', '1', '-c', file];
    },
  },
  {
    name: 'knot-resolver',
    debian: 'knot-resolver',
    command: ({ folder, port, upstreamPort, names }) => {
      const hosts = join(folder, 'kresd.hosts');
      writeFileSync(hosts, names.map(({ name, address }) => `${address} ${name}\n`).join(''));
      const file = join(folder, 'kresd.conf');
      writeFileSync(
        file,
        `net.listen('127.0.0.1', ${port})
modules = { 'hints > iterate' }
hints.add_hosts('${hosts}')
policy.add(policy.suffix(policy.DENY, {todname('nx.cluster.local')}))
trust_anchors.remove('.')
cache.size = 100 * MB
policy.add(policy.all(policy.FORWARD('127.0.0.1@${upstreamPort}')))
`,
      );
      return ['kresd', '-n', '-c', file, folder];
    },
  },
  {
    name: 'coredns',
    debian: '',
    command: ({ folder, port, upstreamPort, names }) => {
      const hosts = join(folder, 'coredns.hosts');
      writeFileSync(hosts, names.map(({ name, address }) => `${address} ${name}\n`).join(''));
      const file = join(folder, 'Corefile');
      writeFileSync(
        file,
        `cluster.local:${port} {\n bind 127.0.0.1\n hosts ${hosts}\n}\n.:${port} {\n bind 127.0.0.1\n cache 3600\n forward . 127.0.0.1:${upstreamPort}\n}\n`,
      );
      return ['coredns', '-conf', file];
    },
  },
];

export function isInstalled(command: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${command}`]).status === 0;
}
