/** `tulle policy` as a person uses it, on a directory of manifests without any cluster. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import fc from 'fast-check';
import { parseAllDocuments } from 'yaml';
import { UserError } from '#lib/errors.ts';
import {
  policyCheck,
  policyDiff,
  policyExplain,
  policyLog,
  policyMatrix,
  policyRules,
} from './commands/policy.ts';
import type { CommandContext } from './program.ts';

const made: string[] = [];
after(() => {
  for (const path of made) rmSync(path, { recursive: true });
  // The commands' own result, not this test's.
  process.exitCode = undefined;
});

function directory(files: Readonly<Record<string, string>>): string {
  const path = mkdtempSync(join(tmpdir(), 'tulle-policy-'));
  made.push(path);
  for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), text);
  return path;
}

async function run(
  command: (context: { print: (line: string) => void; signal: AbortSignal }) => Promise<void>,
): Promise<{ lines: string[]; status: number }> {
  const lines: string[] = [];
  process.exitCode = undefined;
  await command({ print: (line) => lines.push(line), signal: AbortSignal.timeout(10_000) });
  const status = Number(process.exitCode ?? 0);
  process.exitCode = undefined;
  return { lines, status };
}

const APP = `
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}
status: {podIPs: [{ip: 10.1.0.1}, {ip: "fd00::1"}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: db, namespace: shop}
spec: {template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c, ports: [{name: pg, containerPort: 5432}]}]}}}
---
{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.0.2.11}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop}, spec: {selector: {app: db}, ports: [{port: 80, targetPort: pg}]}}
`;
const DB = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: pg}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {}}
  ingress:
  - {name: own, action: Pass, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}]}
  egress:
  - {action: Deny, to: [{networks: [198.51.100.0/24]}]}
`;

describe('tulle policy explain --manifests', () => {
  const manifests = directory({ 'app.yaml': APP, 'policies.yaml': DB });
  const explain = (from: string, to: string, port?: string) =>
    run((context) =>
      policyExplain(
        from,
        to,
        { manifests, agent: 'unused:1', ...(port === undefined ? {} : { port }) },
        context,
      ),
    );

  /** From, to, port; the exit status; what must be said. */
  const ANSWERS: readonly (readonly [string, string, string | undefined, number, RegExp])[] = [
    [
      'shop/web',
      'shop/db',
      '5432/tcp',
      0,
      /Pass by ingress\[0\] "own"(.|\n)*Accept by ingress\[0\]/,
    ],
    ['shop/web', 'shop/db', 'pg', 0, /5432\/TCP: ALLOWED/],
    ['shop/web', 'svc:shop/db', '80', 0, /service shop\/db(.|\n)*5432\/TCP: ALLOWED/],
    ['app=web', 'shop/app=db', '5432', 0, /ALLOWED/],
    ['shop/web', 'shop/db', undefined, 1, /DENIED(.|\n)*allowed on 5432\/TCP/],
    ['shop/web', 'shop/db', '80', 1, /other ports(.|\n)*add the rule \{from: .*app: web/],
    ['shop/web', 'shop/db', 'icmp', 1, /ICMP: DENIED(.|\n)*never about this protocol/],
    ['shop/web', 'shop/db', 'protocol/47', 1, /protocol 47: DENIED/],
    ['192.0.2.99', 'shop/db', '5432', 1, /cidr: 192\.0\.2\.99\/32/],
    ['node:n1', 'shop/db', '5432', 1, /node n1 is not meant(.|\n)*192\.0\.2\.11\/32/],
    ['192.0.2.11', 'shop/web', '80', 0, /own node always reaches it/],
    ['shop/web', '198.51.100.7', '443', 1, /Deny by egress\[0\], matched network 198/],
    ['shop/web', 'fd00::1', '1', 0, /a pod always reaches itself/],
    ['ns:shop', 'ns:shop', '5432', 0, /shop\/web -> shop\/db, 5432\/TCP: ALLOWED/],
  ];
  for (const [from, to, port, status, said] of ANSWERS)
    test(`${from} ${to} ${port ?? ''}`, async () => {
      const answer = await explain(from, to, port);
      assert.match(answer.lines.join('\n'), said);
      assert.equal(answer.status, status);
    });

  const WRONG: readonly (readonly [string, string, string | undefined, RegExp])[] = [
    ['shop/none', 'shop/db', undefined, /There is no pod "shop\/none"/],
    ['shop/web', 'ns:none', undefined, /There is no namespace "ns:none"/],
    ['shop/web', 'app=none', undefined, /No pod is meant by "app=none"/],
    ['', 'shop/db', undefined, /There is no pod ""/],
    ['shop/web', '10.0.0.0/8', undefined, /"10\.0\.0\.0\/8" is a prefix/],
    ['shop/web', '10.0.0.256', undefined, /"10\.0\.0\.256" is no IP address/],
    ['fd00::g', 'shop/db', undefined, /There is no pod "fd00::g"/],
    ['fd00:::1', 'shop/db', undefined, /"fd00:::1" is no IP address/],
    ['svc:shop/db', 'shop/web', undefined, /"svc:shop\/db" cannot be where a flow begins/],
    ['www.example.com', 'shop/web', undefined, /"www\.example\.com" cannot be where a flow begins/],
    ['node:none', 'shop/db', undefined, /There is no node "node:none"/],
    ['app in (web', 'shop/db', undefined, /Cannot read the labels/],
    ['shop/web', 'svc:shop/none', '80', /There is no service "shop\/none"/],
    ['shop/web', 'svc:shop/db', '81', /has no port 81/],
    ['shop/web', 'shop/db', 'http', /no port named "http"/],
    ['shop/web', 'shop/db', '65536', /"65536" is no port/],
    ['shop/web', 'shop/db', 'protocol/300', /is no port/],
    ['shop/web', 'shop/db', '80/foo', /is no port/],
    ['shop/web', 'shop/db', '80/tcp/udp', /"80\/tcp\/udp" is no port/],
    ['shop/web', 'shop/db', '80-90', /"80-90" is no port/],
    ['shop/web', 'shop/db', '', /"" is no port/],
    ['shop/web', 'shop/db', '-1', /"-1" is no port/],
  ];
  for (const [from, to, port, said] of WRONG)
    test(`wrong: ${from} ${to} ${port ?? ''}`, () =>
      assert.rejects(explain(from, to, port), (error: unknown) => {
        assert.ok(error instanceof UserError);
        assert.match(error.message, said);
        assert.ok(error.hint, 'says what to do');
        return true;
      }));

  test('whose name is given without its namespace is told where it is', () =>
    assert.rejects(explain('db', 'shop/web'), { hint: /^There are shop\/db, / }));

  /** What is in the directory, and what is said of it. */
  const UNUSABLE: readonly (readonly [string, Readonly<Record<string, string>>, RegExp])[] = [
    ['nothing', {}, /There is no manifest in ".*"/],
    ['no manifest', { 'README.md': 'kind: Pod' }, /There is no manifest in ".*"/],
    ['no YAML', { 'a.yaml': 'kind: [' }, /Cannot read .*a\.yaml:1:\d+: /],
    ['no object', { 'a.json': '{"name": "x"}' }, /Cannot use .*a\.json:1: apiVersion is not set/],
    [
      'a text for a list',
      { 'a.yaml': 'apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers: 5\n' },
      /Cannot use .*a\.yaml:5: spec\.containers of Pod "a" must be an array/,
    ],
    [
      'a workload of the wrong shape',
      {
        'a.yaml':
          'apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {template: {metadata: {labels: [x]}}}\n',
      },
      /Cannot use .*a\.yaml:\d: metadata\.labels of Deployment "a" must be an object/,
    ],
  ];
  for (const [what, files, said] of UNUSABLE)
    test(`a directory with ${what} is no answer`, async () => {
      const unusable = directory(files);
      await assert.rejects(
        run((context) => policyCheck({ manifests: unusable }, context)),
        (error: unknown) => error instanceof UserError && said.test(error.message),
      );
    });

  test('a directory that is not there', () =>
    assert.rejects(
      run((context) => policyMatrix({ manifests: '/none/such', output: 'table' }, context)),
      /Cannot read the manifests in "\/none\/such"/,
    ));
});

test('tulle policy log and rules refuse what is no address of an agent, and no format', async () => {
  for (const agent of ['m1', 'http://m1:9963', 'a b:1', '127.0.0.1:99631', ''])
    for (const command of [policyLog, policyRules])
      await assert.rejects(
        run((context) => command({ agent, allNodes: false }, context)),
        { message: `--agent "${agent}" is no address with a port`, exitCode: 2 },
      );
  for (const command of [policyLog, policyRules])
    await assert.rejects(
      run((context) => command({ agent: 'm1:1', allNodes: false, output: 'yaml' }, context)),
      { message: 'There is no output format "yaml"', exitCode: 2 },
    );
});

/** Of wrong types the first and the third; `null` is what is missing. */
const SHAPES = [
  'spec: 5',
  'spec: null',
  'spec: {podSelector: x}',
  'spec: {podSelector: {}, ingress: null}',
];

test('tulle policy check names fields that the API drops or cannot read, of whatever shape', async () => {
  const policy = (name: string, spec: string) =>
    `apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: ${name}, namespace: shop}\n${spec}\n`;
  const shapes = SHAPES.map((spec, i) => policy(`shape-${i}`, spec));
  const slip = policy('slip', 'spec:\n  podSelector: {}\n  ingres: []');
  const manifests = directory({ 'app.yaml': APP, 'a.yaml': [...shapes, slip].join('---\n') });
  const { lines } = await run((context) => policyCheck({ manifests }, context));
  const text = lines.join('\n');
  assert.match(text, /a\.yaml:4: .*shape-0: spec: must be an object \[refused-by-the-api\]/);
  assert.match(text, /shape-2: spec\.podSelector: must be an object/);
  assert.doesNotMatch(text, /shape-[13]: .*refused/);
  assert.match(
    text,
    /a\.yaml:26: .*slip: unknown field "spec\.ingres" \(did you mean "ingress"\?\)/,
  );
  // And the answers are those of the engine, which closes what it cannot read.
  const { status } = await run((context) =>
    policyExplain('shop/web', 'shop/db', { manifests, agent: 'm1:1' }, context),
  );
  assert.equal(status, 1);
});

const BAD = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: twice, namespace: shop}
spec: {podSelector: {}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: named
  namespace: shop
  annotations:
    tulle.dev/enforcement: stagd
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from:
    - podSelector: {matchLabels: {app: nobody}}
    ports:
    - port: htp
  - {}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: out, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  egress:
  - to: [{podSelector: {matchLabels: {app: db}}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: empty, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  egress: []
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: wrong, namespace: shop}
spec:
  podSelector: {}
  ingress:
  - from:
    - ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/8]}
    ports:
    - {port: web, endPort: 90}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: a}
spec:
  tier: Admin
  priority: 5
  subject: {namespaces: {}}
  ingress:
  - {action: Accept, from: [{namespaces: {}}]}
  - {action: Deny, from: [{namespaces: {}}]}
  egress:
  - {action: Accept, to: [{domainNames: [web.shop.svc.cluster.local]}]}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: b}
spec:
  tier: Admin
  priority: 5
  subject: {namespaces: {}}
  ingress:
  - {action: Deny, from: [{namespaces: {}}]}
  egress:
  - {action: Accept, to: [{moons: {}}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: twice, namespace: shop}
spec: {podSelector: {matchLabels: {app: wbe}}}
`;

test('tulle policy check names each mistake with its file and line', async () => {
  const manifests = directory({ 'app.yaml': APP, 'bad.yaml': BAD });
  const { lines, status } = await run((context) => policyCheck({ manifests }, context));
  const found = lines.flatMap((line) => {
    const match = /bad\.yaml:(\d+): .*\[([a-z-]+)\]$/.exec(line);
    return match === null ? [] : [`${match[1]} ${match[2]}`];
  });
  assert.deepEqual(found.sort(), [
    '1 duplicate-name',
    '11 unknown-annotation',
    '16 peer-matches-nothing',
    '16 shadowed-rule',
    '18 named-port-missing',
    '20 everything-allowed',
    '25 dns-blocked',
    '25 opened-by-another',
    '25 policy-types-missing',
    '35 policy-types-missing',
    '44 refused-by-the-api',
    '45 named-port-missing',
    '46 refused-by-the-api',
    '57 shadowed-rule',
    '59 domain-in-cluster',
    '66 contradicting-priority',
    '71 not-understood',
    '71 refused-by-the-api',
    '71 rule-matches-nothing',
    '71 unknown-field',
    '76 selects-nothing',
  ]);
  assert.equal(status, 1);
});

test('tulle policy check has nothing to say of sound policies', async () => {
  const kustomization = 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n';
  const manifests = directory({
    ...{ 'app.yaml': APP, 'policies.yaml': DB, 'kustomization.yaml': kustomization },
  });
  const { lines, status } = await run((context) => policyCheck({ manifests }, context));
  assert.deepEqual([lines, status], [['2 policies, nothing to say.'], 0]);
});

test('tulle policy matrix draws in each format, and refuses others', async () => {
  const manifests = directory({ 'app.yaml': APP, 'policies.yaml': DB });
  const draw = async (output: string, namespace?: string) =>
    (
      await run((context) =>
        policyMatrix(
          { manifests, output, ...(namespace === undefined ? {} : { namespace }) },
          context,
        ),
      )
    ).lines.join('\n');
  assert.match(await draw('table'), /shop\/web +5432\/TCP/);
  const cells = JSON.parse(await draw('json')) as { from: string; to: string; allowed: string }[];
  assert.equal(
    cells.find(({ from, to }) => from === 'shop/web' && to === 'shop/db')?.allowed,
    '5432/TCP',
  );
  assert.match(await draw('dot'), /"shop\/web" -> "shop\/db" \[label="5432\/TCP"\]/);
  assert.match(await draw('svg', 'shop'), /^<svg (.|\n)*<\/svg>$/);
  await assert.rejects(draw('png'), /There is no output format "png"/);
  await assert.rejects(draw('table', 'none'), {
    ...{ message: 'There is no pod in the namespace "none"', hint: 'Pods are in shop.' },
  });
});

test('tulle policy diff tells what opens and closes', async () => {
  const before = directory({ 'app.yaml': APP, 'policies.yaml': DB });
  const after = directory({ 'policies.yaml': DB.replace('port: pg', 'port: 5433') });
  const diff = (a: string, b: string) => run((context) => policyDiff(a, b, {}, context));
  assert.deepEqual(await diff(before, after), {
    lines: [
      '+ shop/web -> shop/db: 5433/TCP',
      '- shop/web -> shop/db: 5432/TCP',
      '1 pair changes.',
    ],
    status: 1,
  });
  assert.deepEqual(await diff(before, before), {
    lines: ['No flow between pods is opened or closed.'],
    status: 0,
  });
});

/** What may stand where something else should. */
const ODD = [
  null,
  5,
  -1,
  'x',
  '',
  true,
  [],
  {},
  [null],
  [5],
  { x: 1 },
  [[]],
  { matchLabels: null },
];
const MAX_SHAPES = Number(process.env.TULLE_POLICY_FUZZ ?? 40);

test('manifests of whatever shape get an answer, or are told what is wrong and where', async () => {
  const objects = [APP, DB, BAD].flatMap((text) =>
    parseAllDocuments(text).map((document) => document.toJS() as object),
  );
  const manifests = directory({});
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(), fc.constantFrom(...ODD)), { minLength: 1, maxLength: 4 }),
      async (changes) => {
        const items: unknown = structuredClone(objects);
        for (const [at, odd] of changes) {
          const places = placesIn(items).slice(objects.length);
          const place = places[at % places.length];
          if (place !== undefined) Reflect.set(place.holder, place.key, odd);
        }
        const list = { apiVersion: 'v1', kind: 'List', items };
        writeFileSync(join(manifests, 'all.json'), JSON.stringify(list));
        const flags = { manifests, agent: 'unused:1', port: '80', output: 'svg' };
        for (const ask of [
          (context: CommandContext) => policyCheck(flags, context),
          (context: CommandContext) => policyExplain('ns:shop', 'ns:shop', flags, context),
          (context: CommandContext) => policyMatrix(flags, context),
          (context: CommandContext) => policyDiff(manifests, manifests, {}, context),
        ])
          await run(ask).catch((error: unknown) => {
            if (!(error instanceof UserError)) throw error;
          });
      },
    ),
    { numRuns: MAX_SHAPES },
  );
});

interface Place {
  readonly holder: object;
  readonly key: string;
}

/** Every place in a value that holds something, the outer ones first. */
function placesIn(value: unknown): Place[] {
  if (typeof value !== 'object' || value === null) return [];
  const own = Object.keys(value).map((key) => ({ holder: value, key }));
  return [...own, ...Object.values(value).flatMap(placesIn)];
}
