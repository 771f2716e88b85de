import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeFields } from '../../machinery/unknown-fields.ts';
import type { Container } from './container.ts';
import { POD, type Pod, type PodSpec, type PodStatus } from './pod.ts';

/** Errors as `Type field`. */
type Mistakes = readonly string[];

const APP: Container = { name: 'app', image: 'x' };

function pod(spec: object = {}, status?: PodStatus, annotations?: Record<string, string>): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'web-1', namespace: 'default', ...(annotations && { annotations }) },
    spec: { containers: [APP], ...spec } as PodSpec,
    ...(status === undefined ? {} : { status }),
  };
}

/** What is wrong with a pod as it is created, or changed from another. */
function mistakesOf(object: Pod, old?: Pod): Mistakes {
  const { typeErrors, unknownFields } = decodeFields(POD.schema, object);
  assert.deepEqual([typeErrors, unknownFields], [[], []], 'the sample itself');
  const stored = old === undefined ? undefined : POD.setDefaults(old);
  return POD.validate(POD.setDefaults(object), stored).map(({ type, field }) => `${type} ${field}`);
}

function check(table: readonly (readonly [Pod, Mistakes])[]): void {
  for (const [object, mistakes] of table)
    assert.deepEqual(mistakesOf(object), mistakes, JSON.stringify(object.spec));
}

const C = 'spec.containers[0]';
const app = (fields: object) => pod({ containers: [{ ...APP, ...fields }] });

test('validatePod() takes pods as people write them', () => {
  check([
    [pod(), []],
    [
      pod({
        hostname: 'web-1',
        subdomain: 'web',
        nodeName: 'm1.example',
        nodeSelector: { 'kubernetes.io/os': 'linux' },
        dnsPolicy: 'None',
        dnsConfig: {
          nameservers: ['192.0.2.53', '2001:db8::53'],
          searches: ['_tcp.example.com.', '.'],
          options: [{ name: 'ndots', value: '2' }],
        },
        hostAliases: [{ ip: '192.0.2.9', hostnames: ['db.example', 'db'] }],
        tolerations: [
          { operator: 'Exists' },
          { key: 'a', value: 'b', effect: 'NoExecute', tolerationSeconds: 1 },
        ],
        readinessGates: [{ conditionType: 'example.com/ready' }],
        volumes: [{ name: 'conf', configMap: { name: 'c' } }, { name: 'tmp' }],
        initContainers: [
          { ...APP, name: 'first' },
          {
            ...APP,
            name: 'side',
            restartPolicy: 'Always',
            startupProbe: { exec: { command: ['x'] } },
          },
        ],
        containers: [
          {
            ...APP,
            ports: [
              { containerPort: 53, protocol: 'UDP', name: 'dns', hostPort: 53 },
              { containerPort: 53, protocol: 'TCP', name: 'dns-tcp', hostPort: 53 },
            ],
            env: [
              { name: 'A.b-c', value: '1' },
              { name: 'IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
              { name: 'L', valueFrom: { fieldRef: { fieldPath: "metadata.labels['app']" } } },
              { name: 'CPU', valueFrom: { resourceFieldRef: { resource: 'limits.cpu' } } },
              { name: 'S', valueFrom: { secretKeyRef: { name: 's', key: 'k' } } },
            ],
            envFrom: [{ prefix: 'X_', configMapRef: { name: 'c' } }],
            volumeMounts: [
              { name: 'conf', mountPath: '/etc/x' },
              { name: 'tmp', mountPath: '/tmp', subPath: 'a/b' },
            ],
            resources: {
              limits: { cpu: 1, memory: '1Gi', 'example.com/nic': 1 },
              requests: { cpu: '500m' },
            },
            livenessProbe: { tcpSocket: { port: 'dns-tcp' } },
            readinessProbe: { grpc: { port: 53 } },
            lifecycle: { preStop: { sleep: { seconds: 5 } } },
          },
        ],
      }),
      [],
    ],
    [pod({ hostNetwork: true, containers: [{ ...APP, ports: [{ containerPort: 80 }] }] }), []],
    [pod({}, { podIP: '10.244.0.5', podIPs: [{ ip: '10.244.0.5' }, { ip: 'fd00::5' }] }), []],
    [pod({}, undefined, { 'controller.kubernetes.io/pod-deletion-cost': '-5' }), []],
  ]);
});

test('validatePod() checks names, words and numbers of the spec', () => {
  check([
    [pod({ containers: [] }), ['Required spec.containers']],
    [pod({ hostname: 'a.b' }), ['Invalid spec.hostname']],
    [pod({ subdomain: 'A' }), ['Invalid spec.subdomain']],
    [pod({ nodeName: 'M 1' }), ['Invalid spec.nodeName']],
    [pod({ serviceAccountName: '_' }), ['Invalid spec.serviceAccountName']],
    [pod({ priorityClassName: 'A' }), ['Invalid spec.priorityClassName']],
    [pod({ runtimeClassName: 'A' }), ['Invalid spec.runtimeClassName']],
    [pod({ hostnameOverride: 'a'.repeat(65) }), ['TooLong spec.hostnameOverride']],
    [pod({ hostnameOverride: 'a', hostNetwork: true }), ['Forbidden spec.hostnameOverride']],
    [pod({ hostNetwork: true, hostUsers: false }), ['Forbidden spec.hostNetwork']],
    [pod({ restartPolicy: 'Sometimes' }), ['NotSupported spec.restartPolicy']],
    [pod({ dnsPolicy: 'Cluster' }), ['NotSupported spec.dnsPolicy']],
    [pod({ preemptionPolicy: 'Always' }), ['NotSupported spec.preemptionPolicy']],
    [pod({ activeDeadlineSeconds: 0 }), ['Invalid spec.activeDeadlineSeconds']],
    [
      pod({ nodeSelector: { 'a b': 'c d' } }),
      ['Invalid spec.nodeSelector', 'Invalid spec.nodeSelector'],
    ],
    [
      pod({ ephemeralContainers: [{ ...APP, name: 'look' }] }),
      ['Forbidden spec.ephemeralContainers'],
    ],
    [pod({ nodeName: 'm1', schedulingGates: [{ name: 'x.io/g' }] }), ['Forbidden spec.nodeName']],
    [
      pod({ schedulingGates: [{ name: 'g' }, { name: 'g' }, { name: 'a b' }] }),
      ['Duplicate spec.schedulingGates[1]', 'Invalid spec.schedulingGates[2]'],
    ],
    [
      pod({ readinessGates: [{ conditionType: 'a b' }] }),
      ['Invalid spec.readinessGates[0].conditionType'],
    ],
    [pod({ overhead: { cpu: 'much' } }), ['Invalid spec.overhead[cpu]']],
    [
      pod({}, undefined, { 'controller.kubernetes.io/pod-deletion-cost': '01' }),
      ['Invalid metadata.annotations[controller.kubernetes.io/pod-deletion-cost]'],
    ],
  ]);
});

test('validatePod() checks what a pod says of DNS, of other hosts and of the kernel', () => {
  const dns = (dnsConfig: object, dnsPolicy = 'ClusterFirst') => pod({ dnsConfig, dnsPolicy });
  const sysctls = (...names: string[]) => ({
    securityContext: { sysctls: names.map((name) => ({ name, value: '1' })) },
  });
  check([
    [pod({ dnsPolicy: 'None' }), ['Required spec.dnsConfig']],
    [dns({ searches: ['a'] }, 'None'), ['Required spec.dnsConfig.nameservers']],
    [dns({ nameservers: ['::1', '::2', '::3', '::4'] }), ['Invalid spec.dnsConfig.nameservers']],
    [dns({ nameservers: ['dns.example'] }), ['Invalid spec.dnsConfig.nameservers[0]']],
    [dns({ searches: ['ok', 'no no'] }), ['Invalid spec.dnsConfig.searches[1]']],
    [dns({ searches: Array(33).fill('a') }), ['Invalid spec.dnsConfig.searches']],
    [
      dns({ searches: Array(9).fill(Array(4).fill('a'.repeat(60)).join('.')) }),
      ['Invalid spec.dnsConfig.searches'],
    ],
    [dns({ options: [{ value: '1' }] }), ['Required spec.dnsConfig.options[0]']],
    [pod({ hostAliases: [{ ip: 'x' }] }), ['Invalid spec.hostAliases[0].ip']],
    [
      pod({ hostAliases: [{ ip: '::1', hostnames: ['ok', 'A_b'] }] }),
      ['Invalid spec.hostAliases[0].hostnames[1]'],
    ],
    [
      pod(sysctls('', 'a b', 'net.core.somaxconn', 'net.core.somaxconn')),
      [
        'Required spec.securityContext.sysctls[0].name',
        'Invalid spec.securityContext.sysctls[1].name',
        'Duplicate spec.securityContext.sysctls[3].name',
      ],
    ],
    [
      pod({ hostNetwork: true, ...sysctls('net.ipv4.ip_forward', 'kernel.msgmax') }),
      ['Invalid spec.securityContext.sysctls[0].name'],
    ],
    [
      pod({
        tolerations: [
          {},
          { key: 'a b' },
          { key: 'a', operator: 'Like' },
          { key: 'a', operator: 'Exists', value: 'b' },
          { key: 'a', effect: 'NoRun' },
          { key: 'a', tolerationSeconds: 1 },
        ],
      }),
      [
        'Invalid spec.tolerations[0].operator',
        'Invalid spec.tolerations[1].key',
        'NotSupported spec.tolerations[2].operator',
        'Invalid spec.tolerations[3].operator',
        'NotSupported spec.tolerations[4].effect',
        'Invalid spec.tolerations[5].effect',
      ],
    ],
  ]);
});

test('validatePod() checks containers and their ports', () => {
  const ports = (...list: object[]) => app({ ports: list });
  check([
    [pod({ containers: [{ name: '', image: 'x' }] }), [`Required ${C}.name`]],
    [pod({ containers: [{ name: 'A', image: 'x' }] }), [`Invalid ${C}.name`]],
    [pod({ containers: [{ name: 'a' }] }), [`Required ${C}.image`]],
    [app({ image: ' x' }), [`Invalid ${C}.image`]],
    [pod({ containers: [APP, APP] }), ['Duplicate spec.containers[1].name']],
    [pod({ initContainers: [APP] }), ['Duplicate spec.initContainers[0].name']],
    [app({ imagePullPolicy: 'Often' }), [`NotSupported ${C}.imagePullPolicy`]],
    [app({ terminationMessagePolicy: 'x' }), [`NotSupported ${C}.terminationMessagePolicy`]],
    [app({ restartPolicy: 'Always' }), [`Forbidden ${C}.restartPolicy`]],
    [
      pod({ initContainers: [{ ...APP, name: 'i', restartPolicy: 'Never', livenessProbe: {} }] }),
      [
        'NotSupported spec.initContainers[0].restartPolicy',
        'Forbidden spec.initContainers[0].livenessProbe',
      ],
    ],
    [ports({ containerPort: 0 }), [`Required ${C}.ports[0].containerPort`]],
    [ports({ containerPort: 65536 }), [`Invalid ${C}.ports[0].containerPort`]],
    [ports({ containerPort: 1, hostPort: 70000 }), [`Invalid ${C}.ports[0].hostPort`]],
    [ports({ containerPort: 1, protocol: 'ICMP' }), [`NotSupported ${C}.ports[0].protocol`]],
    [ports({ containerPort: 1, name: 'HTTP' }), [`Invalid ${C}.ports[0].name`]],
    [
      ports({ containerPort: 1, name: 'a' }, { containerPort: 2, name: 'a' }),
      [`Duplicate ${C}.ports[1].name`],
    ],
    [
      ports({ containerPort: 1, hostPort: 80 }, { containerPort: 2, hostPort: 80 }),
      [`Duplicate ${C}.ports[1].hostPort`],
    ],
    [
      ports(
        { containerPort: 1, hostPort: 80, hostIP: '192.0.2.1' },
        { containerPort: 2, hostPort: 80, hostIP: '192.0.2.2' },
      ),
      [],
    ],
    [
      pod({
        hostNetwork: true,
        containers: [{ ...APP, ports: [{ containerPort: 80, hostPort: 8080 }] }],
      }),
      [`Invalid ${C}.ports[0].hostPort`],
    ],
  ]);
});

test('validatePod() checks environment, mounts and amounts', () => {
  const env = (...list: object[]) => app({ env: list });
  const from = (valueFrom: object, value?: string) =>
    env({ name: 'A', valueFrom, ...(value && { value }) });
  const V = `${C}.env[0].valueFrom`;
  check([
    [env({ name: '' }, { name: 'a=b' }), [`Required ${C}.env[0].name`, `Invalid ${C}.env[1].name`]],
    [from({}), [`Invalid ${V}`]],
    [from({ fieldRef: { fieldPath: 'metadata.name' } }, 'x'), [`Invalid ${V}`]],
    [
      from({
        fieldRef: { fieldPath: 'metadata.name' },
        configMapKeyRef: { name: 'a', key: 'b' },
      }),
      [`Invalid ${V}`],
    ],
    [from({ fieldRef: { fieldPath: 'spec.nodename' } }), [`NotSupported ${V}.fieldRef.fieldPath`]],
    [from({ fieldRef: { fieldPath: '' } }), [`Required ${V}.fieldRef.fieldPath`]],
    [from({ fieldRef: { fieldPath: "metadata.labels['a b']" } }), [`Invalid ${V}.fieldRef`]],
    [
      from({ resourceFieldRef: { resource: 'limits.disk' } }),
      [`NotSupported ${V}.resourceFieldRef.resource`],
    ],
    [
      from({ configMapKeyRef: { name: 'A b', key: '' } }),
      [`Invalid ${V}.configMapKeyRef.name`, `Required ${V}.configMapKeyRef.key`],
    ],
    [from({ secretKeyRef: { name: 'a', key: 'x/y' } }), [`Invalid ${V}.secretKeyRef.key`]],
    [app({ envFrom: [{}] }), [`Invalid ${C}.envFrom[0]`]],
    [app({ envFrom: [{ secretRef: {} }] }), [`Required ${C}.envFrom[0].secretRef.name`]],
    [
      pod({
        volumes: [{ name: 'v' }, { name: 'v' }, { name: 'V' }, { name: 'w', nfs: {}, rbd: {} }],
      }),
      [
        'Duplicate spec.volumes[1].name',
        'Invalid spec.volumes[2].name',
        'Forbidden spec.volumes[3].rbd',
      ],
    ],
    [
      pod({
        volumes: [
          { name: 'v', configMap: {} },
          { name: 'w', secret: {} },
        ],
      }),
      ['Required spec.volumes[0].configMap.name', 'Required spec.volumes[1].secret.secretName'],
    ],
    [
      app({ volumeMounts: [{ name: 'no', mountPath: '/a' }] }),
      [`NotFound ${C}.volumeMounts[0].name`],
    ],
    [
      pod({
        volumes: [{ name: 'v' }],
        containers: [
          {
            ...APP,
            volumeMounts: [
              { name: 'v', mountPath: '/a', subPath: '/abs' },
              { name: 'v', mountPath: '/a', subPath: 'x/../y' },
              { name: 'v', mountPath: '', subPath: 'a', subPathExpr: 'b' },
            ],
            volumeDevices: [{ name: 'w', devicePath: '/dev/x' }],
          },
        ],
      }),
      [
        `NotFound ${C}.volumeDevices[0].name`,
        `Invalid ${C}.volumeMounts[0].subPath`,
        `Invalid ${C}.volumeMounts[1].subPath`,
        `Invalid ${C}.volumeMounts[1].mountPath`,
        `Required ${C}.volumeMounts[2].mountPath`,
        `Invalid ${C}.volumeMounts[2].subPathExpr`,
      ],
    ],
    [app({ resources: { limits: { cpu: 'lots' } } }), [`Invalid ${C}.resources.limits[cpu]`]],
    [
      app({ resources: { requests: { memory: '-1' } } }),
      [`Invalid ${C}.resources.requests[memory]`],
    ],
    [
      app({ resources: { requests: { disk: '1' } } }),
      [`Invalid ${C}.resources.requests`, `Required ${C}.resources.limits`],
    ],
    [
      app({ resources: { limits: { cpu: '1' }, requests: { cpu: '1001m' } } }),
      [`Invalid ${C}.resources.requests`],
    ],
    [
      app({ resources: { limits: { 'a.io/x': 2 }, requests: { 'a.io/x': 1 } } }),
      [`Invalid ${C}.resources.requests`],
    ],
  ]);
});

test('validatePod() checks probes and hooks', () => {
  const P = `${C}.readinessProbe`;
  const ready = (probe: object) => app({ readinessProbe: probe });
  check([
    [ready({}), [`Required ${P}`]],
    [ready({ exec: {} }), [`Required ${P}.exec.command`]],
    [ready({ tcpSocket: { port: 1 }, httpGet: { port: 1 } }), [`Forbidden ${P}.tcpSocket`]],
    [ready({ httpGet: { port: 0 } }), [`Invalid ${P}.httpGet.port`]],
    [ready({ httpGet: { port: 'HTTP' } }), [`Invalid ${P}.httpGet.port`]],
    [ready({ httpGet: { port: 1, scheme: 'ftp' } }), [`NotSupported ${P}.httpGet.scheme`]],
    [
      ready({ httpGet: { port: 1, httpHeaders: [{ name: 'a b', value: '' }] } }),
      [`Invalid ${P}.httpGet.httpHeaders`],
    ],
    [ready({ tcpSocket: { port: 70000 } }), [`Invalid ${P}.tcpSocket.port`]],
    [ready({ grpc: { port: -1 } }), [`Invalid ${P}.grpc.port`]],
    [ready({ tcpSocket: { port: 1 }, periodSeconds: -1 }), [`Invalid ${P}.periodSeconds`]],
    [
      ready({ tcpSocket: { port: 1 }, terminationGracePeriodSeconds: 1 }),
      [`Invalid ${P}.terminationGracePeriodSeconds`],
    ],
    [ready({ tcpSocket: { port: 1 }, successThreshold: 2 }), []],
    [
      app({ livenessProbe: { tcpSocket: { port: 1 }, successThreshold: 2 } }),
      [`Invalid ${C}.livenessProbe.successThreshold`],
    ],
    [
      app({ lifecycle: { postStart: {}, preStop: { exec: { command: [] } } } }),
      [`Required ${C}.lifecycle.postStart`, `Required ${C}.lifecycle.preStop.exec.command`],
    ],
  ]);
});

test('validatePod() checks the addresses of the status', () => {
  const table: [PodStatus, Mistakes][] = [
    [{ podIP: 'x' }, ['Invalid status.podIP']],
    [{ podIP: '10.0.0.1', podIPs: [{ ip: '10.0.0.2' }] }, ['Invalid status.podIPs[0].ip']],
    [{ podIPs: [{ ip: '10.0.0.1' }, { ip: '10.0.0.2' }] }, ['Invalid status.podIPs']],
    [
      { podIPs: [{ ip: '10.0.0.1' }, { ip: '10.0.0.1' }] },
      ['Duplicate status.podIPs[1]', 'Invalid status.podIPs'],
    ],
    [{ hostIP: '192.0.2.1', hostIPs: [{ ip: '192.0.2.2' }] }, ['Invalid status.hostIPs[0].ip']],
    [{ nominatedNodeName: 'M 1' }, ['Invalid status.nominatedNodeName']],
    [{ conditions: [{ type: 'a b', status: 'True' }] }, ['Invalid status.conditions[0].type']],
    [{ qosClass: 'Guaranteed' }, ['Invalid status.qosClass']],
  ];
  for (const [status, mistakes] of table)
    assert.deepEqual(mistakesOf(pod({}, status), pod()), mistakes, JSON.stringify(status));
});

test('validatePod() lets an update change little of a pod', () => {
  const full = {
    nodeName: 'm1',
    activeDeadlineSeconds: 10,
    terminationGracePeriodSeconds: -1,
    tolerations: [{ key: 'a', effect: 'NoExecute', tolerationSeconds: 1 }],
  };
  const extra = { key: 'b', operator: 'Exists' };
  const table: [object, object, Mistakes][] = [
    [{}, {}, []],
    [{}, { containers: [{ ...APP, image: 'y:1' }] }, []],
    [{}, { nodeName: 'm1' }, []],
    [{}, { volumes: [], hostNetwork: false, subdomain: '' }, []],
    [full, { ...full, activeDeadlineSeconds: 5, terminationGracePeriodSeconds: 1 }, []],
    [full, { ...full, tolerations: [...full.tolerations, extra] }, []],
    [full, { ...full, tolerations: [{ ...full.tolerations[0], tolerationSeconds: 9 }] }, []],
    [full, { ...full, tolerations: [extra] }, ['Forbidden spec.tolerations']],
    [full, { ...full, activeDeadlineSeconds: 11 }, ['Invalid spec.activeDeadlineSeconds']],
    [full, { ...full, activeDeadlineSeconds: undefined }, ['Invalid spec.activeDeadlineSeconds']],
    [full, { ...full, terminationGracePeriodSeconds: 2 }, ['Forbidden spec']],
    [full, { ...full, nodeName: 'm2' }, ['Forbidden spec']],
    [full, { ...full, nodeName: undefined }, ['Forbidden spec']],
    [{}, { hostNetwork: true }, ['Forbidden spec']],
    [{}, { hostname: 'other' }, ['Forbidden spec']],
    [{}, { containers: [{ ...APP, ports: [{ containerPort: 80 }] }] }, ['Forbidden spec']],
    [{}, { containers: [APP, { ...APP, name: 'b' }] }, ['Forbidden spec.containers']],
    [{}, { schedulingGates: [{ name: 'g' }] }, ['Forbidden spec.schedulingGates[0].name']],
    [{ schedulingGates: [{ name: 'g' }] }, {}, []],
    [{ schedulingGates: [{ name: 'g' }] }, { nodeSelector: { a: 'b' } }, []],
    [{}, { nodeSelector: { a: 'b' } }, ['Forbidden spec']],
  ];
  for (const [old, next, mistakes] of table) {
    const plain = (spec: object) => pod(JSON.parse(JSON.stringify(spec)) as object);
    assert.deepEqual(mistakesOf(plain(next), plain(old)), mistakes, JSON.stringify(next));
  }
  const [error] = POD.validate(
    POD.setDefaults(pod({ hostname: 'b', subdomain: 'c' })),
    POD.setDefaults(pod()),
  );
  assert.match(error?.detail ?? '', /this one changes hostname, subdomain$/);
});

test('validatePod() lets the status of a pod be written that today could not be created', () => {
  const bare = pod({ containers: [{ name: 'app' }] });
  assert.deepEqual(mistakesOf({ ...bare, status: { phase: 'Running' } }, bare), []);
  assert.deepEqual(mistakesOf(bare), [`Required ${C}.image`]);
});
