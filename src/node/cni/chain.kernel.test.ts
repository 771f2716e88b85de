/**
 * Chains of plugins, as a runtime runs them: plugins of the reference after ours, and ours after the reference bridge.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { describe, test } from 'node:test';
import { silentLogger } from '#lib/log.ts';
import { Machine } from '../pod-machine.ts';
import { shaperName } from './bandwidth.ts';
import { createCniHandler } from './handler.ts';
import { hostLinkName } from './plan.ts';

const PLUGINS = '/usr/lib/cni';
const skip = existsSync(`${PLUGINS}/tuning`)
  ? false
  : 'needs the reference plugins (containernetworking-plugins)';

type Json = Record<string, unknown>;
/** One plugin of a list; `tulle` is the agent. */
type Plugin = Json & { type: string };

async function call(
  machine: Machine,
  pod: string,
  command: string,
  plugin: Plugin,
  prev?: Json,
): Promise<Json | undefined> {
  const env: Record<string, string> = {
    CNI_COMMAND: command,
    CNI_CONTAINERID: pod,
    CNI_NETNS: machine.path(pod),
    CNI_IFNAME: 'eth0',
    CNI_PATH: PLUGINS,
  };
  const config = JSON.stringify({
    cniVersion: '1.0.0',
    name: 'net',
    ...plugin,
    ...(prev === undefined ? {} : { prevResult: prev }),
  });
  let stdout: string;
  if (plugin.type === 'tulle') {
    const answer = await createCniHandler(machine.attacher, silentLogger)({ env, stdin: config });
    assert.equal(answer.exitCode, 0, answer.stdout);
    stdout = answer.stdout;
  } else {
    const vars = Object.entries({ ...env, PATH: process.env.PATH }).map(([k, v]) => `${k}=${v}`);
    const argv = ['netns', 'exec', machine.host, 'env', ...vars, `${PLUGINS}/${plugin.type}`];
    stdout = execFileSync('ip', argv, { input: config, encoding: 'utf8' });
  }
  return stdout === '' ? undefined : (JSON.parse(stdout) as Json);
}

/** The whole life of a chain, with CHECK in the middle. */
async function runChain(
  machine: Machine,
  pod: string,
  plugins: Plugin[],
  look: (result: Json) => void,
) {
  let result: Json | undefined;
  for (const plugin of plugins) result = await call(machine, pod, 'ADD', plugin, result);
  assert.ok(result !== undefined);
  // portmap 1.1.1 looks for the rules of one family in the other's table, so its CHECK fails wherever there are two.
  for (const plugin of plugins)
    if (plugin.type !== 'portmap') await call(machine, pod, 'CHECK', plugin, result);
  look(result);
  for (let i = 0; i < 2; i++)
    for (const plugin of plugins.toReversed()) await call(machine, pod, 'DEL', plugin, result);
}

describe('chains', { skip }, () => {
  test('tuning, bandwidth and portmap of the reference come after ours', async () => {
    await using machine = new Machine();
    const pod = machine.addNamespace('a');
    const plugins: Plugin[] = [
      { type: 'tulle' },
      {
        type: 'tuning',
        mtu: 1300,
        sysctl: { 'net.core.somaxconn': '500' },
        dataDir: machine.scratch,
      },
      {
        type: 'bandwidth',
        ingressRate: 8_000_000,
        ingressBurst: 800_000,
        egressRate: 8_000_000,
        egressBurst: 800_000,
      },
      {
        type: 'portmap',
        backend: 'iptables',
        runtimeConfig: { portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }] },
      },
    ];
    await runChain(machine, pod, plugins, () => {
      assert.match(machine.run(pod, 'ip link show eth0'), /mtu 1300/);
      assert.match(machine.run(pod, 'sysctl net.core.somaxconn'), /500/);
      const qdisc = machine.run(machine.host, `tc qdisc show dev ${hostLinkName(pod, 'eth0')}`);
      assert.match(qdisc, /tbf/);
      assert.match(
        machine.run(machine.host, 'iptables-save -t nat'),
        /--dport 8080 .*DNAT --to-destination 192\.0\.2\.1:80/,
      );
    });
    assert.equal(machine.attacher.list().length, 0);
  });

  test('ours comes after the reference bridge: rules, host ports and limits, and the bridge stays its own', async () => {
    await using machine = new Machine();
    const pod = machine.addNamespace('a');
    const plugins: Plugin[] = [
      {
        type: 'bridge',
        isDefaultGateway: true,
        ipam: { type: 'host-local', subnet: '10.88.0.0/16', dataDir: machine.scratch },
      },
      {
        type: 'tulle',
        runtimeConfig: {
          portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }],
          bandwidth: {
            ingressRate: 8_000_000,
            ingressBurst: 800_000,
            egressRate: 0,
            egressBurst: 0,
          },
        },
      },
    ];
    await runChain(machine, pod, plugins, (result) => {
      assert.deepEqual(
        (result.ips as Json[])[0]?.address,
        '10.88.0.2/16',
        'the result is passed on',
      );
      const port = machine.attacher.list()[0]?.hostLink ?? '';
      assert.match(machine.run(machine.host, `tc qdisc show dev ${port}`), /tbf .*rate 8Mbit/);
      assert.match(
        machine.run(machine.host, 'nft list map ip tulle host-ports-any'),
        /10\.88\.0\.2 \. 80/,
      );
      machine.run(pod, 'ip address add 10.88.0.66/16 dev eth0');
      machine.run(pod, 'ping -c 1 -W 1 -q 10.88.0.1');
      assert.throws(() => machine.run(pod, 'ping -c 1 -W 1 -q -I 10.88.0.66 10.88.0.1'));
    });
    assert.deepEqual(await machine.leftovers(), {
      links: [],
      routes: [],
      addresses: [],
      records: [],
      elements: 0,
    });
  });
});

describe('bandwidth', () => {
  test('limits both directions, shows up in CHECK, survives a restart and goes with the pod', async () => {
    await using machine = new Machine();
    const pod = machine.addNamespace('a');
    const runtimeConfig = {
      bandwidth: {
        ingressRate: 4_000_000,
        ingressBurst: 1_000_000,
        egressRate: 2_000_000,
        egressBurst: 1_000_000,
      },
    };
    const tulle: Plugin = { type: 'tulle', runtimeConfig };
    const result = await call(machine, pod, 'ADD', tulle);
    const link = hostLinkName(pod, 'eth0');
    const shown = (dev: string) => machine.run(machine.host, `tc qdisc show dev ${dev}`);
    assert.match(shown(link), /tbf 1: root .*rate 4Mbit burst 125000b/);
    assert.match(shown(shaperName(link)), /tbf 1: root .*rate 2Mbit burst 125000b/);
    machine.run(pod, 'ping -c 1 -W 1 -q 198.51.100.1');
    await call(machine, pod, 'CHECK', tulle, result);
    machine.run(machine.host, `ip link del ${shaperName(link)}`);
    await assert.rejects(
      call(machine, pod, 'CHECK', tulle, result),
      /limit of what the pod sends is missing/,
    );
    machine.start().recover();
    machine.run(pod, 'ping -c 1 -W 1 -q 198.51.100.1');
    await call(machine, pod, 'CHECK', tulle, result);
    await call(machine, pod, 'DEL', tulle, result);
    assert.deepEqual(await machine.leftovers(), {
      links: [],
      routes: [],
      addresses: [],
      records: [],
      elements: 0,
    });
  });

  test('an administrator wins over the runtime', async () => {
    await using machine = new Machine();
    const pod = machine.addNamespace('a');
    await call(machine, pod, 'ADD', {
      type: 'tulle',
      ingressRate: 1_000_000,
      ingressBurst: 8_000_000,
      runtimeConfig: { bandwidth: { ingressRate: 9_000_000, ingressBurst: 8_000_000 } },
    });
    assert.match(
      machine.run(machine.host, `tc qdisc show dev ${hostLinkName(pod, 'eth0')}`),
      /rate 1Mbit/,
    );
  });
});
