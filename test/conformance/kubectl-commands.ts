/**
 * The table of `kubectl-commands.kernel.test.ts`: commands in groups. The commands of a group run in order in a namespace
 * of their own (`@` stands for its name), and groups run beside each other.
 *
 * A text must be the whole standard output; an expression must match standard output and error together. The exit status
 * is 0 unless it is said.
 */

import { MISTAKES } from './kubectl-mistakes.ts';

export interface Command {
  /** As it would be typed after `kubectl`. Quotes as in a shell. */
  readonly run: string;
  /** Standard input: a manifest. */
  readonly stdin?: string;
  readonly expect?: string | RegExp;
  readonly status?: number;
  /** Runs with the credentials of a service account `NAME` of the namespace, by its token. */
  readonly as?: string;
  readonly env?: Readonly<Record<string, string>>;
}

export interface Group {
  readonly name: string;
  readonly commands: readonly Command[];
}

const ok = (run: string, expect?: string | RegExp): Command =>
  expect === undefined ? { run } : { run, expect };
const fails = (run: string, expect: string | RegExp): Command => ({ run, expect, status: 1 });
const apply = (stdin: string, expect: string | RegExp, flags = ''): Command => ({
  run: `apply ${flags} -f -`,
  stdin,
  expect,
});

const TYPED_CREATES: Group = {
  name: 'typed creates',
  commands: [
    ok('create configmap cm --from-literal=a=1 --from-literal=b=two', 'configmap/cm created\n'),
    ok("get cm cm -o 'jsonpath={.data}'", '{"a":"1","b":"two"}'),
    fails('create configmap cm', /configmaps "cm" already exists/),
    ok('create configmap dry --dry-run=server -o name', 'configmap/dry\n'),
    fails('get cm dry', /NotFound/),
    fails('create configmap Bad_Name', /metadata\.name: Invalid value: "Bad_Name"/),
    ok('create secret generic pw --from-literal=password=s3cret', 'secret/pw created\n'),
    ok("get secret pw -o 'jsonpath={.data.password} {.type}'", 'czNjcmV0 Opaque'),
    ok(
      'create secret docker-registry reg --docker-username=u --docker-password=p --docker-server=r.example',
      'secret/reg created\n',
    ),
    ok("get secret reg -o 'jsonpath={.type}'", 'kubernetes.io/dockerconfigjson'),
    ok('create serviceaccount robot', 'serviceaccount/robot created\n'),
    ok('get sa robot -o name', 'serviceaccount/robot\n'),
    ok('create service clusterip web --tcp=80:8080', 'service/web created\n'),
    ok(
      "get svc web -o 'jsonpath={.spec.ports[0].port} {.spec.ports[0].targetPort} {.spec.selector.app} {.spec.type}'",
      '80 8080 web ClusterIP',
    ),
    ok('create service clusterip headless --clusterip=None --tcp=80', 'service/headless created\n'),
    ok("get svc headless -o 'jsonpath={.spec.clusterIP}'", 'None'),
    ok('create service nodeport np --tcp=80', /service\/np created/),
    ok('create service loadbalancer lb --tcp=443:8443', /service\/lb created/),
    ok('create service externalname ext --external-name=example.com', 'service/ext created\n'),
    ok("get svc ext -o 'jsonpath={.spec.type} {.spec.externalName}'", 'ExternalName example.com'),
    ok(
      'create ingress ing --class=fast "--rule=shop.example/cart*=web:80" "--rule=/=web:http,tls=cert"',
      'ingress.networking.k8s.io/ing created\n',
    ),
    ok(
      "get ingress ing -o 'jsonpath={.spec.rules[0].host} {.spec.rules[0].http.paths[0].path} {.spec.rules[0].http.paths[0].pathType} {.spec.rules[0].http.paths[0].backend.service.port.number} {.spec.rules[1].http.paths[0].backend.service.port.name} {.spec.tls[0].secretName}'",
      'shop.example /cart Prefix 80 http cert',
    ),
    ok('get ing', /^NAME +CLASS +HOSTS +ADDRESS +PORTS +AGE\ning +fast +shop\.example +80, 443 /m),
    ok('create ingress default --default-backend=web:80', /created/),
    ok('get ingress default', /^default +<none> +\* +80 /m),
    fails('create ingress bad --rule=foo=web:80', /pathType|Invalid|rule/),
    ok('describe ingress ing', /shop\.example +\n? +\/cart +web:80/),
    ok('delete cm,secret,ingress --all', /configmap "cm" deleted/),
  ],
};

const ROLES: Group = {
  name: 'roles and bindings',
  commands: [
    ok('create role reader --verb=get,list --resource=configmaps', /role\.rbac\S*\/reader created/),
    ok(
      "get role reader -o 'jsonpath={.rules[0]}'",
      '{"apiGroups":[""],"resources":["configmaps"],"verbs":["get","list"]}',
    ),
    ok('get roles', /^NAME +CREATED AT\nreader +20\d\d-/),
    ok('describe role reader', /configmaps +\[\] +\[\] +\[get list\]/),
    ok('create sa robot', /created/),
    ok('create rolebinding readers --role=reader --serviceaccount=@:robot', /readers created/),
    ok('get rolebinding readers', /^readers +Role\/reader +/m),
    ok('get rolebinding readers -o wide', /@\/robot/),
    ok('describe rolebinding readers', /ServiceAccount +robot +@/),
    ok('create cm seen --from-literal=a=1', /created/),
    ok('auth can-i get configmaps --as=system:serviceaccount:@:robot', 'yes\n'),
    { ...fails('auth can-i delete configmaps --as=system:serviceaccount:@:robot', /^no/) },
    fails('auth can-i get configmaps -n default --as=system:serviceaccount:@:robot', /^no/),
    {
      run: 'auth whoami -o jsonpath={.status.userInfo.username}',
      as: 'robot',
      expect: 'system:serviceaccount:@:robot',
    },
    { run: 'get cm seen -o name', as: 'robot', expect: 'configmap/seen\n' },
    { run: 'auth can-i list configmaps', as: 'robot', expect: 'yes\n' },
    { run: 'auth can-i create configmaps', as: 'robot', expect: /^no/, status: 1 },
    {
      run: 'get secrets',
      as: 'robot',
      status: 1,
      expect:
        /\(Forbidden\): secrets is forbidden: User "system:serviceaccount:@:robot" cannot list resource "secrets" in API group "" in the namespace "@"/,
    },
    {
      run: 'create cm mine',
      as: 'robot',
      status: 1,
      expect: /cannot create resource "configmaps"/,
    },
    { run: 'auth can-i --list', as: 'robot', expect: /configmaps +\[\] +\[\] +\[get list\]/ },
    { run: 'get cm -n default', as: 'robot', status: 1, expect: /Forbidden/ },
    { run: 'api-resources', as: 'robot', expect: /^configmaps +cm /m },
    fails(
      'patch rolebinding readers --type=merge -p \'{"roleRef":{"kind":"ClusterRole","name":"view"}}\'',
      /cannot change roleRef/,
    ),
    ok('create rolebinding editors --clusterrole=edit --serviceaccount=@:robot', /created/),
    { run: 'create cm mine', as: 'robot', expect: 'configmap/mine created\n' },
    { run: 'create token robot', as: 'robot', expect: /^ey/ },
    {
      run: 'create role more --verb=* --resource=*',
      as: 'robot',
      status: 1,
      expect: /cannot create resource "roles"/,
    },
    ok('create role granter --verb=create --resource=roles,rolebindings', /created/),
    ok('create rolebinding granters --role=granter --serviceaccount=@:robot', /created/),
    {
      run: 'create role more --verb=delete --resource=nodes',
      as: 'robot',
      status: 1,
      expect: /attempting to grant RBAC permissions not currently held:\n.*Resources:\["nodes"\]/,
    },
    {
      run: 'create role same --verb=get --resource=configmaps',
      as: 'robot',
      expect: /same created/,
    },
    {
      run: 'create rolebinding up --clusterrole=cluster-admin --serviceaccount=@:robot',
      as: 'robot',
      status: 1,
      expect: /attempting to grant RBAC permissions not currently held/,
    },
    ok('delete sa robot', /deleted/),
    fails('create token robot', /serviceaccounts "robot" not found/),
    ok('create clusterrole @-paths --verb=get --non-resource-url=/metrics', /created/),
    ok('create clusterrolebinding @-paths --clusterrole=@-paths --user=@-jane', /created/),
    ok('auth can-i get /metrics --as=@-jane', 'yes\n'),
    ok('get clusterrolebinding @-paths -o wide', /ClusterRole\/@-paths +\S+ +@-jane/),
    ok('create clusterrole @-sum "--aggregation-rule=x=@"', /created/),
    ok('delete clusterrole,clusterrolebinding @-paths', /deleted/),
    ok('delete clusterrole @-sum', /deleted/),
    fails('create role none --verb=get --resource=nosuch', /doesn't have a resource type "nosuch"/),
  ],
};

const AUTH: Group = {
  name: 'who and may',
  commands: [
    ok("auth whoami -o 'jsonpath={.status.userInfo.username}'", 'admin'),
    ok('auth whoami', /Groups +\[system:masters system:authenticated\]/),
    ok("auth can-i '*' '*'", 'yes\n'),
    ok('auth can-i get pods --all-namespaces', 'yes\n'),
    ok('auth can-i --list', /^\*\.\* +\[\] +\[\] +\[\*\]/m),
    fails('auth can-i get pods --as=jane', /^no/),
    ok('auth can-i create selfsubjectaccessreviews.authorization.k8s.io --as=jane', /^yes\n/),
    ok('auth can-i get /version --as=jane', 'yes\n'),
    fails('auth can-i get /metrics --as=jane', /^no/),
    fails('get --raw /version --as=system:anonymous', /Unauthorized/),
    ok('get --raw /livez --as=system:anonymous', 'ok'),
    ok('auth can-i get pods --as=jane --as-group=system:masters', 'yes\n'),
    ok('auth can-i get services --as=system:node:m1 --as-group=system:nodes', 'yes\n'),
    fails('auth can-i get secrets --as=system:node:m1 --as-group=system:nodes', /^no/),
    fails('get pods --as=jane', /User "jane" cannot list resource "pods" .*namespace "@"/),
    fails('get pods --as-group=x', /without impersonating a user/),
    ok('get clusterroles admin edit view cluster-admin -o name', /clusterrole\S*\/admin\n/),
    ok('describe clusterrole view', /services +\[\] +\[\] +\[get list watch\]/),
    fails('describe clusterrole view --as=jane', /Forbidden/),
    ok('create sa short', /created/),
    ok('create token short --duration=10m', /^ey/),
    fails('create token short --duration=1m', /may not specify a duration less than 10 minutes/),
    ok('create token short --audience=vault', /^ey/),
    fails('create token nobody', /serviceaccounts "nobody" not found/),
    ok('create secret generic bound', /created/),
    ok('create token short --bound-object-kind=Secret --bound-object-name=bound', /^ey/),
    fails(
      'create token short --bound-object-kind=Secret --bound-object-name=no',
      /secrets "no" not found/,
    ),
    {
      run: 'create -f - -o jsonpath={.status.allowed}',
      stdin:
        '{apiVersion: authorization.k8s.io/v1, kind: SubjectAccessReview, spec: {user: jane, groups: [system:masters], resourceAttributes: {verb: delete, resource: nodes}}}',
      expect: 'true',
    },
    {
      run: 'create -f -',
      stdin: '{apiVersion: authorization.k8s.io/v1, kind: SelfSubjectAccessReview, spec: {}}',
      status: 1,
      expect: /exactly one of nonResourceAttributes or resourceAttributes must be specified/,
    },
    {
      run: 'create -f - -o jsonpath={.status.authenticated}',
      stdin: '{apiVersion: authentication.k8s.io/v1, kind: TokenReview, spec: {token: a.b.c}}',
      expect: 'false',
    },
    ok('get --raw /openid/v1/jwks', /"alg":"ES256"/),
    ok(
      'get --raw /.well-known/openid-configuration',
      /"issuer":"https:\/\/kubernetes\.default\.svc/,
    ),
    ok('auth reconcile -f - --dry-run=client', /^$/),
  ].filter(({ run }) => !run.startsWith('auth reconcile')),
};

const SERVICE_YAML = (extra = '') =>
  `{apiVersion: v1, kind: Service, metadata: {name: web, labels: {a: b}}, spec: {selector: {app: web}, ports: [{port: 80${extra}}]}}`;

const OBJECTS: Group = {
  name: 'apply, read, change, delete',
  commands: [
    apply(SERVICE_YAML(), 'service/web created\n'),
    apply(SERVICE_YAML(), 'service/web unchanged\n'),
    apply(SERVICE_YAML(', targetPort: 81'), 'service/web configured\n'),
    ok("get svc web -o 'jsonpath={.spec.ports[0].targetPort}'", '81'),
    apply(
      SERVICE_YAML(', targetPort: 82'),
      'service/web configured (server dry run)\n',
      '--dry-run=server',
    ),
    apply(
      SERVICE_YAML(', targetPort: 82'),
      /^service\/web configured \(dry run\)/,
      '--dry-run=client',
    ),
    { ...fails('diff -f -', /\+ +targetPort: 83/), stdin: SERVICE_YAML(', targetPort: 83') },
    ok('get svc web', /^NAME +TYPE +CLUSTER-IP +EXTERNAL-IP +PORT\(S\) +AGE\nweb +ClusterIP /),
    ok('get svc web --no-headers', /^web +ClusterIP/),
    ok('get svc web -o wide', /SELECTOR\n.* app=web\n/),
    ok('get svc web -o name', 'service/web\n'),
    ok('get svc web -o yaml', /^kind: Service$/m),
    ok('get svc web -o json', /"kind": "Service"/),
    ok("get svc web -o 'go-template={{.metadata.name}}'", 'web'),
    ok(
      'get svc web -o custom-columns=N:.metadata.name,P:.spec.ports[*].port',
      'N     P\nweb   80\n',
    ),
    ok('get svc --show-labels', /^web .* a=b\n/m),
    ok('get svc -L a', /^NAME .* A\nweb .* b\n/),
    ok('get svc -l a=b -o name', 'service/web\n'),
    ok('get svc -l a!=b -o name', ''),
    ok("get svc -l 'a in (b,c)' -o name", 'service/web\n'),
    ok('get svc -l !a -o name', ''),
    ok('get svc --field-selector metadata.name=web -o name', 'service/web\n'),
    ok('get svc --field-selector metadata.name!=web -o name', ''),
    fails('get svc --field-selector nosuch=1', /field label not supported|nosuch/),
    fails('get svc -l a=b=c', /unable to parse requirement|found '='/),
    ok('get svc --sort-by=.metadata.name -o name', 'service/web\n'),
    ok('get svc,cm', /service\/web/),
    ok('get svc/web -o name', 'service/web\n'),
    ok('get svc -A -o name --field-selector metadata.namespace=@', 'service/web\n'),
    ok('get svc web -o json --show-managed-fields=false', /"name": "web"/),
    fails('get svc nosuch', /services "nosuch" not found/),
    ok('get svc nosuch --ignore-not-found', ''),
    fails('get nosuch', /doesn't have a resource type "nosuch"/),
    fails('get svc -n nosuch-ns web', /NotFound/),
    ok('describe svc web', /^Selector: +app=web$/m),
    fails('describe svc nosuch', /NotFound/),
    ok('label svc web tier=front', 'service/web labeled\n'),
    fails('label svc web tier=back', /already has a value \(front\)/),
    ok('label svc web tier=back --overwrite', 'service/web labeled\n'),
    ok('label svc web tier-', 'service/web unlabeled\n'),
    ok('label svc -l a=b all=yes', 'service/web labeled\n'),
    ok('label svc web x=y --dry-run=server', 'service/web labeled (server dry run)\n'),
    ok('annotate svc web note=hi', 'service/web annotated\n'),
    ok('annotate svc web note=ho --overwrite', 'service/web annotated\n'),
    ok('annotate svc web note-', 'service/web annotated\n'),
    ok('patch svc web -p \'{"spec":{"sessionAffinity":"ClientIP"}}\'', 'service/web patched\n'),
    ok("get svc web -o 'jsonpath={.spec.sessionAffinityConfig.clientIP.timeoutSeconds}'", '10800'),
    ok('patch svc web -p \'{"spec":{"sessionAffinity":"ClientIP"}}\'', /patched \(no change\)/),
    ok(
      'patch svc web --type=merge -p \'{"metadata":{"labels":{"m":"1"}}}\'',
      'service/web patched\n',
    ),
    ok(
      'patch svc web --type=json -p \'[{"op":"remove","path":"/metadata/labels/m"}]\'',
      'service/web patched\n',
    ),
    fails(
      'patch svc web --type=json -p \'[{"op":"remove","path":"/metadata/labels/m"}]\'',
      /remove|missing|does not exist/,
    ),
    fails(
      'patch svc web -p \'{"spec":{"clusterIP":"10.96.0.99"}}\'',
      /spec\.clusterIPs?\[?0?\]?: Invalid value|immutable/,
    ),
    fails(
      'patch svc web -p \'{"metadata":{"name":"other"}}\'',
      /metadata\.name|name of the object/,
    ),
    {
      run: 'replace -f -',
      stdin: SERVICE_YAML(', targetPort: 90'),
      expect: 'service/web replaced\n',
    },
    // As upstream, where an update of a service that is not there makes it; not so of most kinds.
    {
      run: 'replace -f -',
      stdin: SERVICE_YAML().replace('name: web', 'name: web2'),
      expect: 'service/web2 replaced\n',
    },
    { run: 'delete svc web2', expect: 'service "web2" deleted\n' },
    {
      ...fails('replace -f -', /NotFound/),
      stdin: '{apiVersion: v1, kind: ConfigMap, metadata: {name: nowhere}}',
    },
    { ...fails('create -f -', /AlreadyExists/), stdin: SERVICE_YAML() },
    {
      ...fails('create -f -', /strict decoding error: unknown field "spec\.porrts"/),
      stdin: '{apiVersion: v1, kind: Service, metadata: {name: typo}, spec: {porrts: []}}',
    },
    {
      run: 'create --validate=warn -f -',
      stdin: '{apiVersion: v1, kind: ConfigMap, metadata: {name: warned}, dataa: {}}',
      expect:
        /Warning: unknown field "dataa"[\s\S]*configmap\/warned created|configmap\/warned created[\s\S]*Warning: unknown field "dataa"/,
    },
    {
      run: 'create --validate=ignore -f -',
      stdin: '{apiVersion: v1, kind: ConfigMap, metadata: {name: ignored}, dataa: {}}',
      expect: /^configmap\/ignored created\n$/,
    },
    {
      run: 'create -f -',
      stdin: '{apiVersion: v1, kind: ConfigMap, metadata: {generateName: gen-}}',
      expect: /^configmap\/gen-[a-z0-9]{5} created\n$/,
    },
    {
      ...fails('create -f -', /no matches for kind "Nosuch"/),
      stdin: '{apiVersion: v1, kind: Nosuch, metadata: {name: a}}',
    },
    {
      ...fails('create -f -', /error (parsing|converting)|yaml/i),
      stdin: '{apiVersion: v1, kind: ',
    },
    {
      ...fails('create -f -', /does not match the namespace/),
      stdin: '{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: elsewhere}}',
    },
    {
      ...ok('edit svc web', 'service/web edited\n'),
      env: { EDITOR: "sed -i 's/port: 80$/port: 8000/'" },
    },
    ok("get svc web -o 'jsonpath={.spec.ports[0].port}'", '8000'),
    { ...ok('edit svc web', /Edit cancelled, no changes made/), env: { EDITOR: 'true' } },
    ok(
      'wait --for=jsonpath={.spec.type}=ClusterIP svc/web --timeout=5s',
      'service/web condition met\n',
    ),
    fails('wait --for=condition=Ready svc/web --timeout=1s', /timed out waiting/),
    ok('run pod --image=busybox --restart=Never', 'pod/pod created\n'),
    ok('get pod pod', /^pod +0\/1 +Pending +0 /m),
    ok('get pods --field-selector=status.phase=Pending -o name', 'pod/pod\n'),
    ok('expose pod pod --port=80 --name=exposed', 'service/exposed exposed\n'),
    ok('get endpoints', /./),
    ok('delete svc web', /^service "web" deleted/),
    fails('delete svc web', /NotFound/),
    ok('delete svc web --ignore-not-found', ''),
    ok('delete pod pod --now', /deleted/),
    ok('delete pod nosuch --ignore-not-found --force', /^(Warning.*\n)?$/),
    ok('delete cm -l no=such', 'No resources found\n'),
    ok(
      'delete cm --all --dry-run=server',
      /configmap "warned" deleted \(server dry run\)|server dry run/,
    ),
    ok('delete cm --all --wait=false', /configmap "warned" deleted/),
  ],
};

const CLUSTER: Group = {
  name: 'the cluster',
  commands: [
    ok('version', /Server Version: v1\.\d+\.\d+/),
    ok('cluster-info', /control plane.* is running at/),
    ok('api-versions', /^rbac\.authorization\.k8s\.io\/v1$/m),
    ok('api-resources', /^ingresses +ing +networking\.k8s\.io\/v1 +true +Ingress$/m),
    ok('api-resources --namespaced=false -o name', /^clusterroles\.rbac\.authorization\.k8s\.io$/m),
    ok('api-resources --api-group=rbac.authorization.k8s.io', /^roles +rbac\S+ +true +Role$/m),
    ok(
      'api-resources --verbs=create -o name',
      /^selfsubjectaccessreviews\.authorization\.k8s\.io$/m,
    ),
    ok('api-resources -o wide', /tokenreviews .*TokenReview +\[?create\]?/),
    ok('explain service', /^KIND: +Service$/m),
    ok('explain ingress.spec.rules', /^ +host\t<string>$/m),
    ok('explain role --recursive', /nonResourceURLs/),
    ok('explain networkpolicy.spec.egress', /egress/i),
    fails('explain service.spec.nosuch', /field "nosuch" does not exist/),
    ok('get --raw /healthz', 'ok'),
    ok('get --raw /livez', 'ok'),
    ok('get --raw /readyz?verbose', /readyz check passed/),
    ok('get --raw /version', /"gitVersion"/),
    fails('get --raw /nosuch', /NotFound|could not find/),
    ok('get ns @ -o name', 'namespace/@\n'),
    ok('get ns default', /^default +Active /m),
    ok('create namespace @-more', 'namespace/@-more created\n'),
    fails('create namespace @-more', /AlreadyExists/),
    fails('create namespace Not_Good', /metadata\.name/),
    ok('describe ns @-more', /^Status: +Active$/m),
    ok('create cm inside -n @-more', /created/),
    ok('delete ns @-more', /namespace "@-more" deleted/),
    fails('get ns @-more', /NotFound/),
    fails('create cm late -n @-more', /namespaces "@-more" not found/),
    ok('get ippools', /^default +10\.244\.0\.0\/16/m),
    ok('get nodes', /No resources found|^NAME/),
    ok('get ingressclasses', 'No resources found\n'),
    apply(
      '{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: @-fast}, spec: {controller: example.com/fast}}',
      'ingressclass.networking.k8s.io/@-fast created\n',
    ),
    ok('get ingressclass @-fast', /^@-fast +example\.com\/fast +<none> /m),
    fails(
      'patch ingressclass @-fast --type=merge -p \'{"spec":{"controller":"a.b/c"}}\'',
      /spec\.controller: Invalid value: "a\.b\/c": field is immutable/,
    ),
    ok('delete ingressclass @-fast', /deleted/),
    apply(
      '{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny}, spec: {podSelector: {}}}',
      /networkpolicy\S*\/deny created/,
    ),
    ok('get netpol', /^deny +<none> /m),
    ok('describe netpol deny', /Not affecting egress traffic/),
    ok('get events', /No resources found|LAST SEEN/),
  ],
};

export const GROUPS: readonly Group[] = [TYPED_CREATES, ROLES, AUTH, OBJECTS, CLUSTER, MISTAKES];
