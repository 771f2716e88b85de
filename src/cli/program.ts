/** The command line: every command, its options and its help. What a command does stands in `commands/`. */
import { Command, Option } from 'commander';
import type * as PolicyCommands from './commands/policy.ts';
import type { RawOptions } from './options.ts';
import { answering, EXIT_USAGE } from './output.ts';

/** Loaded when they are asked for: a server must not keep in memory what draws labs, nor `tulle token` wait for it. */
const commands = {
  apply: () => import('./commands/apply.ts'),
  demo: () => import('./commands/demo.ts'),
  dns: () => import('./commands/dns.ts'),
  ipam: () => import('./commands/ipam.ts'),
  lab: () => import('./commands/lab.ts'),
  policy: () => import('./commands/policy.ts'),
  status: () => import('./commands/status.ts'),
  token: () => import('./commands/token.ts'),
} as const;

/** The long-running commands are composed in `src/bin`, which may see every layer. */
export interface Daemons {
  server(flags: RawOptions, configFile: string | undefined): Promise<void>;
  agent(flags: RawOptions, configFile: string | undefined): Promise<void>;
  uninstall(flags: UninstallFlags): Promise<void>;
  backup(file: string, flags: { kubeconfig?: string }): Promise<void>;
  restore(file: string, flags: { dataDir?: string }): Promise<void>;
}

export interface UninstallFlags {
  dataDir?: string;
  cniBinDir?: string;
  cniConfDir?: string;
  serverData: boolean;
  force: boolean;
}

export interface CommandContext {
  /** A line to standard output. */
  readonly print: (line: string) => void;
  /** Aborted by SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
}

export function createProgram(version: string, daemons: Daemons, context: CommandContext): Command {
  const program = new Command('tulle')
    .description('The container network in one program: CNI, services, DNS, policy.')
    .version(version)
    .enablePositionalOptions()
    .showHelpAfterError('(run with --help for the options)')
    .configureHelp({ showGlobalOptions: true })
    .exitOverride((error) => {
      // Help and version are no errors; a wrong command line has status 2 as everywhere.
      process.exit(error.exitCode === 0 ? 0 : EXIT_USAGE);
    });
  addDaemons(program, daemons);
  addUninstall(program, daemons);
  addApiCommands(program, context);
  addPolicyCommands(program, context);
  addLabCommands(program, context);
  return program;
}

function addDaemons(program: Command, daemons: Daemons): void {
  const logLevel = () =>
    new Option('--log-level <level>', 'debug, info, warn, error or silent (default: info)');
  const config = () => new Option('--config <file>', 'YAML file with these options; flags win');
  const server = program
    .command('server')
    .description('run the API server, with its embedded store or on an etcd')
    .option('--data-dir <dir>', 'where the store, certificates and the kubeconfig are kept')
    .option('--listen <address:port>', 'default: 0.0.0.0:6443')
    .option('--advertise-address <address>', 'where agents and pods reach this server')
    .option(
      '--pod-cidr <cidr...>',
      'first pool of pod addresses, one per family (first start only)',
    )
    .option('--service-cidr <cidr...>', 'range of cluster IPs, one per family')
    .option('--service-node-port-range <first-last>', 'ports for services on every node')
    .option('--cluster-domain <domain>', 'default: cluster.local')
    .option('--etcd <url...>', 'keep the state in this etcd: several servers, one cluster')
    .option('--etcd-prefix <prefix>', 'before every key in etcd (default: /tulle.dev)')
    .option('--etcd-ca <file>', 'authorities that sign the certificates of etcd')
    .option('--etcd-cert <file>', 'client certificate for etcd')
    .option('--etcd-key <file>', 'its key')
    .option('--etcd-user <name>', 'for an etcd with authentication')
    .option('--etcd-password-file <file>', 'file that holds its password')
    .option('--cluster-secret-file <file>', 'with --etcd: a secret that all servers are given')
    .option('--ca-cert <file>', 'a certificate authority of yours, with those above it (PEM)')
    .option('--ca-key <file>', 'its key')
    .option('--replace-ca', 'let it take the place of another one: all nodes must join again')
    .option('--forget-token-keys', 'refuse tokens of service accounts that an older key signed')
    .addOption(logLevel())
    .addOption(config())
    .action(({ config: file, ...flags }: RawOptions & { config?: string }) =>
      daemons.server(flags, file),
    );
  server
    .command('backup')
    .description('copy the store of a running server to a file')
    .argument('<file>')
    .option('--kubeconfig <file>', 'an administrator’s; default: as for apply')
    .action((file: string, flags: { kubeconfig?: string }) => daemons.backup(file, flags));
  server
    .command('restore')
    .description('make a backup the store of a data directory whose server is stopped')
    .argument('<file>')
    .option('--data-dir <dir>', 'default: /var/lib/tulle/server')
    .action((file: string, flags: { dataDir?: string }) => daemons.restore(file, flags));
  program
    .command('agent')
    .description('run the agent of this node: pods, fabric, services, DNS')
    .option('--server <url...>', 'API servers, tried in turn')
    .option('--token <token>', 'join token, needed the first time')
    .option('--token-file <file>', 'file that holds the join token')
    .option(
      '--kubeconfig <file>',
      'of a Kubernetes cluster: instead of --server and --token; default in a pod: its service account',
    )
    .option('--node-name <name>', 'default: the host name')
    .option('--node-ip <address>', 'address on the underlay (default: of the route to the server)')
    .option(
      '--node-port-addresses <cidr...>',
      'where node ports are open: addresses of this node in these prefixes (default: its own)',
    )
    .option('--zone <name>', 'failure zone of this node')
    .option('--data-dir <dir>', 'default: /var/lib/tulle/agent')
    .option('--cluster-domain <domain>', 'default: cluster.local')
    .option('--cni-bin-dir <dir>', 'default: /opt/cni/bin')
    .option('--cni-conf-dir <dir>', 'default: /etc/cni/net.d')
    .option('--upstream-dns <address...>', "default: the host's resolv.conf")
    .option('--host-resolver', "this machine's own programs ask the node's DNS server too")
    // Both, or commander would say "true" for a flag that was not given, and the file would never be asked.
    .option('--open-firewalls', "let pods' traffic pass other programs' firewalls (the default)")
    .option(
      '--no-open-firewalls',
      'leave them alone: docs/coexistence.md says what they must let pass',
    )
    .option(
      '--fast-path',
      'established connections between pods pass the host by, in eBPF (the default)',
    )
    .option('--no-fast-path', 'they take the host’s routing and rules, as all else does')
    .option('--status-address <address:port>', 'healthz and metrics (default: 127.0.0.1:9963)')
    .addOption(logLevel())
    .addOption(config())
    .action(({ config: file, ...flags }: RawOptions & { config?: string }) =>
      daemons.agent(flags, file),
    );
}

function addUninstall(program: Command, daemons: Daemons): void {
  program
    .command('uninstall')
    .description('take Tulle off this machine: links, routes, rules, settings, files')
    .option('--data-dir <dir>', "the agent's, default: /var/lib/tulle/agent")
    .option('--cni-bin-dir <dir>', 'default: /opt/cni/bin')
    .option('--cni-conf-dir <dir>', 'default: /etc/cni/net.d')
    .option('--server-data', 'also the data of a server on this machine: the whole cluster', false)
    .option('--force', 'even if containers are attached', false)
    .action((flags: UninstallFlags) => daemons.uninstall(flags));
}

function addApiCommands(program: Command, context: CommandContext): void {
  const kubeconfig = () =>
    new Option(
      '--kubeconfig <file>',
      'default: $KUBECONFIG, /var/lib/tulle/server/admin.kubeconfig, ~/.kube/config',
    );
  program
    .command('apply')
    .description('create or change objects from manifests, as kubectl apply does')
    .requiredOption('-f, --filename <file...>', 'YAML or JSON; - is standard input')
    .addOption(kubeconfig())
    .action((flags: { filename: string[]; kubeconfig?: string }) =>
      commands.apply().then((it) => it.applyCommand(flags, context)),
    );
  program
    .command('status')
    .description(
      'the network in one screen: machines, fabric, pods, services, DNS, and what is wrong',
    )
    .addOption(kubeconfig())
    .action((flags: { kubeconfig?: string }) =>
      commands.status().then((it) => it.statusCommand(flags, context)),
    );
  const dns = program.command('dns').description('what DNS does on this node');
  dns
    .command('log <pod>')
    .description('follow the queries of one pod of this node: NAMESPACE/NAME (as root)')
    .option('--socket <path>', "the agent's socket (default: /run/tulle/dns.sock)")
    .action((pod: string, flags: { socket?: string }) =>
      commands.dns().then((it) => it.dnsLog(pod, flags, context)),
    );
  const ipam = program.command('ipam').description('pod addresses: who holds which, and why');
  ipam
    .command('show [address]')
    .description('pools and blocks, or all that is known of one address')
    .addOption(kubeconfig())
    .action((address: string | undefined, flags: { kubeconfig?: string }) =>
      commands.ipam().then((it) => it.ipamShow(address, flags, context)),
    );
  ipam
    .command('check')
    .description('whether pools, blocks, pods and nodes fit together')
    .addOption(kubeconfig())
    .action((flags: { kubeconfig?: string }) =>
      commands.ipam().then((it) => it.ipamCheck(flags, context)),
    );
  ipam
    .command('release <address>')
    .description('give an address back whose owner is gone')
    .option('--force', 'although a pod says that it has it', false)
    .addOption(kubeconfig())
    .action((address: string, flags: { kubeconfig?: string; force: boolean }) =>
      commands.ipam().then((it) => it.ipamRelease(address, flags, context)),
    );
  const token = program.command('token').description('tokens that let nodes join');
  token
    .command('create')
    .description('make a token and print it; it is shown this once')
    .option('--ttl <hours>', 'how long it is valid', '24')
    .option('--description <text>', 'what it is for', '')
    .addOption(kubeconfig())
    .action((flags: { ttl: string; description: string; kubeconfig?: string }) =>
      commands.token().then((it) => it.tokenCreate(flags, context)),
    );
  token
    .command('list')
    .addOption(kubeconfig())
    .action((flags: { kubeconfig?: string }) =>
      commands.token().then((it) => it.tokenList(flags, context)),
    );
  token
    .command('revoke <id>')
    .addOption(kubeconfig())
    .action((id: string, flags: { kubeconfig?: string }) =>
      commands.token().then((it) => it.tokenRevoke(id, flags, context)),
    );
}

function addPolicyCommands(program: Command, context: CommandContext): void {
  const kubeconfig = () => new Option('--kubeconfig <file>', 'default: as for apply');
  const manifests = () =>
    new Option('--manifests <dir>', 'YAML files instead of a cluster: policies, pods, workloads');
  const agent = () =>
    new Option('--agent <address:port>', "the agent's status address").default('127.0.0.1:9963');
  const policy = program
    .command('policy')
    .description('network policies: who may talk to whom, and why');
  policy
    .command('explain <from> <to>')
    .description(
      'whether a flow is allowed and by which rules; FROM and TO: [NAMESPACE/]POD, ns:NAMESPACE, node:NAME, an address, a domain name, labels (app=web); TO also svc:[NAMESPACE/]SERVICE',
    )
    .option(
      '--port <port/protocol>',
      '80/tcp, 53/udp, a port name, icmp, protocol/NUMBER; default: all TCP ports',
    )
    .option('--staged', 'as if staged policies were enforced', false)
    .addOption(agent())
    .addOption(manifests())
    .addOption(kubeconfig())
    .action((from: string, to: string, flags: Parameters<typeof PolicyCommands.policyExplain>[2]) =>
      answering(commands.policy().then((it) => it.policyExplain(from, to, flags, context))),
    );
  policy
    .command('check')
    .description('policies that probably do not mean what they say, with file and line')
    .addOption(manifests())
    .addOption(kubeconfig())
    .action((flags: Parameters<typeof PolicyCommands.policyCheck>[0]) =>
      answering(commands.policy().then((it) => it.policyCheck(flags, context))),
    );
  policy
    .command('matrix')
    .description('who may talk to whom')
    .option('-n, --namespace <name>', 'only its pods')
    .option('-o, --output <format>', 'table, json, dot (Graphviz) or svg', 'table')
    .addOption(manifests())
    .addOption(kubeconfig())
    .action((flags: Parameters<typeof PolicyCommands.policyMatrix>[0]) =>
      commands.policy().then((it) => it.policyMatrix(flags, context)),
    );
  policy
    .command('diff <a> <b>')
    .description('what going from A to B opens (+) and closes (-); each a directory, or "live"')
    .addOption(kubeconfig())
    .action((a: string, b: string, flags: { kubeconfig?: string }) =>
      answering(commands.policy().then((it) => it.policyDiff(a, b, flags, context))),
    );
  policy
    .command('rules')
    .description('the rules in this node’s kernel, and the connections that each decided about')
    .option('--all-nodes', 'of all nodes, as they tell the API every minute', false)
    .option('-o, --output <format>', 'json: one object a line')
    .addOption(agent())
    .addOption(kubeconfig())
    .action((flags: Parameters<typeof PolicyCommands.policyRules>[0]) =>
      commands.policy().then((it) => it.policyRules(flags, context)),
    );
  policy
    .command('log')
    .description("refused packets on this node, with names, as the node's agent saw them")
    .option('-f, --follow', 'go on', false)
    .option('-o, --output <format>', 'json: one object a line')
    .addOption(agent())
    .action((flags: Parameters<typeof PolicyCommands.policyLog>[0]) =>
      commands.policy().then((it) => it.policyLog(flags, context)),
    );
}

function addLabCommands(program: Command, context: CommandContext): void {
  program
    .command('demo')
    .description('three machines, real containers, one network: shown on this computer')
    .option('--keep', 'leave it running at the end', false)
    .option('--name <name>', 'name of the lab', 'demo')
    .action((flags: { keep: boolean; name: string }) =>
      commands.demo().then((it) => it.demoCommand(flags, context)),
    );
  const lab = program
    .command('lab')
    .description('machines made of namespaces, for trying and testing');
  lab.enablePositionalOptions();
  const named = () => new Option('--lab <name>', 'default: the only lab there is');
  lab
    .command('up [name]')
    .description('draw a lab and start Tulle in it')
    .option('-n, --machines <count>', 'how many machines', '3')
    .option('--bare', 'machines and underlay only', false)
    .action((name: string | undefined, flags: { machines: string; bare: boolean }) =>
      commands.lab().then((it) => it.labUp(name ?? 'lab', flags, context)),
    );
  lab
    .command('exec <machine> <command...>')
    .description('run a command in a machine')
    .addOption(named())
    .passThroughOptions()
    .action((machine: string, command: string[], flags: { lab?: string }) =>
      commands.lab().then((it) => it.labExec(machine, command, flags)),
    );
  lab
    .command('partition <machine> <others...>')
    .description('cut the underlay between a machine and others')
    .addOption(named())
    .action((machine: string, others: string[], flags: { lab?: string }) =>
      commands.lab().then((it) => it.labPartition(machine, others, flags, context)),
    );
  lab
    .command('heal')
    .description('take all cuts back')
    .addOption(named())
    .action((flags: { lab?: string }) => commands.lab().then((it) => it.labHeal(flags, context)));
  lab
    .command('list')
    .description('the labs on this computer')
    .action(() => commands.lab().then((it) => it.labList(context)));
  lab
    .command('down [name]')
    .description('remove a lab, all of it (default: the only one)')
    .option('--all', 'remove all labs', false)
    .action((name: string | undefined, flags: { all: boolean }) =>
      commands.lab().then((it) => it.labDown(name, flags, context)),
    );
}
