import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { formatIpRange } from '#lib/ip-range.ts';
import { CniError } from '#wire/cni/error.ts';
import { parseCniRequest } from '#wire/cni/request.ts';
import { hostLinkName } from './plan.ts';
import { type AddRequest, wantedOf } from './target.ts';

const FACTS = { mtuBytes: 1450, nowMs: Date.UTC(2026, 0, 1), isBesideKubelet: true };

function add(options: { args?: string; config?: object; id?: string } = {}): AddRequest {
  const env = {
    CNI_COMMAND: 'ADD',
    CNI_CONTAINERID: options.id ?? 'c1',
    CNI_NETNS: '/run/netns/c1',
    CNI_IFNAME: 'eth0',
    CNI_PATH: '/opt/cni/bin',
    CNI_ARGS: options.args ?? '',
  };
  const stdin = JSON.stringify({ cniVersion: '1.1.0', name: 'tulle', ...options.config });
  return parseCniRequest(env, stdin) as AddRequest;
}
const wanted = (options: Parameters<typeof add>[0]) => wantedOf(add(options), FACTS);

describe('wantedOf()', () => {
  test('names the attachment and its link, always in the same way', () => {
    const { attachment, requested } = wanted({});
    assert.deepEqual(requested, []);
    assert.equal(attachment.handle, 'tulle.c1.eth0');
    assert.match(attachment.hostLink, /^tl[0-9a-f]{11}$/);
    assert.equal(attachment.hostLink, hostLinkName('c1', 'eth0'));
    assert.notEqual(attachment.hostLink, hostLinkName('c1', 'eth1'));
    assert.equal(wanted({}).attachment.mac, attachment.mac);
    assert.equal(Number.parseInt(attachment.mac.slice(0, 2), 16) & 3, 2, 'local and unicast');
  });

  test('takes the pod from the arguments: podman, Kubernetes, neither', () => {
    assert.deepEqual(wanted({ args: 'IgnoreUnknown=1;K8S_POD_NAME=web' }).attachment.pod, {
      namespace: 'default',
      name: 'web',
      kubelet: false,
    });
    const args = 'K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_UID=u;K8S_POD_INFRA_CONTAINER_ID=i';
    assert.deepEqual(wanted({ args }).attachment.pod, {
      namespace: 'ns',
      name: 'p',
      uid: 'u',
      kubelet: true,
      sandbox: true,
    });
    const alone = wantedOf(add({ args }), { ...FACTS, isBesideKubelet: false }).attachment.pod;
    assert.deepEqual([alone.name, alone.kubelet, alone.sandbox], ['p', false, true]);
    assert.equal(wanted({}).attachment.pod.name, 'c1');
  });

  test('capabilities go before args, and args before CNI_ARGS', () => {
    const args = 'IP=192.0.2.1/24';
    const argIps = { args: { cni: { ips: ['192.0.2.2'] } } };
    const capability = { ...argIps, runtimeConfig: { ips: ['192.0.2.3/24', '2001:db8::3'] } };
    assert.deepEqual(wanted({ args }).requested, ['192.0.2.1']);
    assert.deepEqual(wanted({ args, config: argIps }).requested, ['192.0.2.2']);
    assert.deepEqual(wanted({ args, config: capability }).requested, ['192.0.2.3', '2001:db8::3']);
  });

  test('reads ranges for addresses of pools, and leaves those of address plugins to them', () => {
    const runtimeConfig = { ipRanges: [[{ subnet: '192.0.2.0/24' }]] };
    assert.deepEqual(wanted({ config: { runtimeConfig } }).ranges.map(formatIpRange), [
      '192.0.2.0/24',
    ]);
    const plugin = { mode: 'bridge', ipam: { type: 'host-local' } };
    assert.deepEqual(wanted({ config: { ...plugin, runtimeConfig } }).ranges, []);
  });

  const bad: [string, Parameters<typeof add>[0], RegExp][] = [
    ['an address that is none', { args: 'IP=192.0.2' }, /"192\.0\.2" is no IP address/],
    [
      'two addresses of a family',
      { config: { runtimeConfig: { ips: ['192.0.2.1', '192.0.2.2'] } } },
      /more than one IPv4/,
    ],
    ['a MAC that is none', { args: 'MAC=zz' }, /"zz" is no MAC/],
    ['a multicast MAC', { config: { runtimeConfig: { mac: '01:00:00:00:00:01' } } }, /multicast/],
    ['an endless container id', { id: 'c'.repeat(250) }, /too long/],
  ];
  for (const [what, options, message] of bad)
    test(`refuses ${what}`, () => {
      assert.throws(
        () => wanted(options),
        (error) => error instanceof CniError && message.test(error.message),
      );
    });
});
