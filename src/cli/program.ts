/** The command line: every command, its options and its help. What a command does stands in `commands/`. */
import { Command, Option } from 'commander';
import { applyCommand } from './commands/apply.ts';
import { demoCommand } from './commands/demo.ts';
import { ipamCheck, ipamRelease, ipamShow } from './commands/ipam.ts';
import { labDown, labExec, labHeal, labList, labPartition, labUp } from './commands/lab.ts';
import { statusCommand } from './commands/status.ts';
import { tokenCreate, tokenList, tokenRevoke } from './commands/token.ts';
import type { RawOptions } from './options.ts';
import { EXIT_USAGE } from './output.ts';

/** The long-running commands are composed in `src/bin`, which may see every layer. */
export interface Daemons {
  server(flags: RawOptions, configFile: string | undefined): Promise<void>;
  agent(flags: RawOptions, configFile: string | undefined): Promise<void>;
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
  addApiCommands(program, context);
  addLabCommands(program, context);
  return program;
}

function addDaemons(program: Command, daemons: Daemons): void {
  const logLevel = () =>
    new Option('--log-level <level>', 'debug, info, warn, error or silent (default: info)');
  const config = () => new Option('--config <file>', 'YAML file with these options; flags win');
  program
    .command('server')
    .description('run the API server with its embedded store')
    .option('--data-dir <dir>', 'where the store, certificates and the kubeconfig are kept')
    .option('--listen <address:port>', 'default: 0.0.0.0:6443')
    .option('--advertise-address <address>', 'where agents and pods reach this server')
    .option(
      '--pod-cidr <cidr...>',
      'first pool of pod addresses, one per family (first start only)',
    )
    .option('--service-cidr <cidr...>', 'range of cluster IPs, one per family')
    .option('--cluster-domain <domain>', 'default: cluster.local')
    .addOption(logLevel())
    .addOption(config())
    .action(({ config: file, ...flags }: RawOptions & { config?: string }) =>
      daemons.server(flags, file),
    );
  program
    .command('agent')
    .description('run the agent of this node: pods, fabric, services, DNS')
    .option('--server <url...>', 'API servers, tried in turn')
    .option('--token <token>', 'join token, needed the first time')
    .option('--token-file <file>', 'file that holds the join token')
    .option('--kubeconfig <file>', 'inside a Kubernetes cluster: instead of --server and --token')
    .option('--node-name <name>', 'default: the host name')
    .option('--node-ip <address>', 'address on the underlay (default: of the route to the server)')
    .option('--zone <name>', 'failure zone of this node')
    .option('--data-dir <dir>', 'default: /var/lib/tulle/agent')
    .option('--cluster-domain <domain>', 'default: cluster.local')
    .option('--cni-bin-dir <dir>', 'default: /opt/cni/bin')
    .option('--cni-conf-dir <dir>', 'default: /etc/cni/net.d')
    .option('--upstream-dns <address...>', "default: the host's resolv.conf")
    .option('--status-address <address:port>', 'healthz and metrics (default: 127.0.0.1:9963)')
    .addOption(logLevel())
    .addOption(config())
    .action(({ config: file, ...flags }: RawOptions & { config?: string }) =>
      daemons.agent(flags, file),
    );
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
    .action((flags: { filename: string[]; kubeconfig?: string }) => applyCommand(flags, context));
  program
    .command('status')
    .description(
      'the network in one screen: machines, fabric, pods, services, DNS, and what is wrong',
    )
    .addOption(kubeconfig())
    .action((flags: { kubeconfig?: string }) => statusCommand(flags, context));
  const ipam = program.command('ipam').description('pod addresses: who holds which, and why');
  ipam
    .command('show [address]')
    .description('pools and blocks, or all that is known of one address')
    .addOption(kubeconfig())
    .action((address: string | undefined, flags: { kubeconfig?: string }) =>
      ipamShow(address, flags, context),
    );
  ipam
    .command('check')
    .description('whether pools, blocks, pods and nodes fit together')
    .addOption(kubeconfig())
    .action((flags: { kubeconfig?: string }) => ipamCheck(flags, context));
  ipam
    .command('release <address>')
    .description('give an address back whose owner is gone')
    .option('--force', 'although a pod says that it has it', false)
    .addOption(kubeconfig())
    .action((address: string, flags: { kubeconfig?: string; force: boolean }) =>
      ipamRelease(address, flags, context),
    );
  const token = program.command('token').description('tokens that let nodes join');
  token
    .command('create')
    .description('make a token and print it; it is shown this once')
    .option('--ttl <hours>', 'how long it is valid', '24')
    .option('--description <text>', 'what it is for', '')
    .addOption(kubeconfig())
    .action((flags: { ttl: string; description: string; kubeconfig?: string }) =>
      tokenCreate(flags, context),
    );
  token
    .command('list')
    .addOption(kubeconfig())
    .action((flags: { kubeconfig?: string }) => tokenList(flags, context));
  token
    .command('revoke <id>')
    .addOption(kubeconfig())
    .action((id: string, flags: { kubeconfig?: string }) => tokenRevoke(id, flags, context));
}

function addLabCommands(program: Command, context: CommandContext): void {
  program
    .command('demo')
    .description('three machines, real containers, one network: shown on this computer')
    .option('--keep', 'leave it running at the end', false)
    .option('--name <name>', 'name of the lab', 'demo')
    .action((flags: { keep: boolean; name: string }) => demoCommand(flags, context));
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
      labUp(name ?? 'lab', flags, context),
    );
  lab
    .command('exec <machine> <command...>')
    .description('run a command in a machine')
    .addOption(named())
    .passThroughOptions()
    .action((machine: string, command: string[], flags: { lab?: string }) =>
      labExec(machine, command, flags),
    );
  lab
    .command('partition <machine> <others...>')
    .description('cut the underlay between a machine and others')
    .addOption(named())
    .action((machine: string, others: string[], flags: { lab?: string }) =>
      labPartition(machine, others, flags, context),
    );
  lab
    .command('heal')
    .description('take all cuts back')
    .addOption(named())
    .action((flags: { lab?: string }) => labHeal(flags, context));
  lab
    .command('list')
    .description('the labs on this computer')
    .action(() => labList(context));
  lab
    .command('down [name]')
    .description('remove a lab, all of it (default: the only one)')
    .option('--all', 'remove all labs', false)
    .action((name: string | undefined, flags: { all: boolean }) => labDown(name, flags, context));
}
