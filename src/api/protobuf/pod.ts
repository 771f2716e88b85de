/** Pod: `k8s.io/api/core/v1/generated.proto`. What is not here (affinity, rare volumes) is named to the client as dropped. */
import {
  bool,
  INT_OR_STRING,
  inline,
  int,
  kindMessage,
  LOCAL_OBJECT_REFERENCE,
  list,
  map,
  message,
  one,
  optBool,
  optInt,
  optional,
  optLong,
  optStr,
  QUANTITY,
  str,
  stringMap,
  strings,
  TIME,
} from './table.ts';

const CONTAINER_PORT = message('ContainerPort', {
  1: str('name'),
  2: int('hostPort'),
  3: int('containerPort'),
  4: str('protocol'),
  5: str('hostIP'),
});

const KEY_SELECTOR = message('KeySelector', {
  1: inline(LOCAL_OBJECT_REFERENCE),
  2: str('key'),
  3: optBool('optional'),
});
const FIELD_REF = message('ObjectFieldSelector', { 1: str('apiVersion'), 2: str('fieldPath') });
const RESOURCE_FIELD_REF = message('ResourceFieldSelector', {
  1: str('containerName'),
  2: str('resource'),
  3: one('divisor', QUANTITY),
});

const ENV_VAR = message('EnvVar', {
  1: str('name'),
  2: str('value'),
  3: optional(
    'valueFrom',
    message('EnvVarSource', {
      1: optional('fieldRef', FIELD_REF),
      2: optional('resourceFieldRef', RESOURCE_FIELD_REF),
      3: optional('configMapKeyRef', KEY_SELECTOR),
      4: optional('secretKeyRef', KEY_SELECTOR),
    }),
  ),
});

const ENV_SOURCE = message('EnvSource', {
  1: inline(LOCAL_OBJECT_REFERENCE),
  2: optBool('optional'),
});
const ENV_FROM = message('EnvFromSource', {
  1: str('prefix'),
  2: optional('configMapRef', ENV_SOURCE),
  3: optional('secretRef', ENV_SOURCE),
});

const RESOURCES = message('ResourceRequirements', {
  1: map('limits', QUANTITY),
  2: map('requests', QUANTITY),
  3: list('claims', message('ResourceClaim', { 1: str('name'), 2: str('request') })),
});

const EXEC = message('ExecAction', { 1: strings('command') });
const HTTP_GET = message('HTTPGetAction', {
  1: str('path'),
  2: one('port', INT_OR_STRING),
  3: str('host'),
  4: str('scheme'),
  5: list('httpHeaders', message('HTTPHeader', { 1: str('name'), 2: str('value') })),
});
const TCP_SOCKET = message('TCPSocketAction', { 1: one('port', INT_OR_STRING), 2: str('host') });

const PROBE = message('Probe', {
  1: inline(
    message('ProbeHandler', {
      1: optional('exec', EXEC),
      2: optional('httpGet', HTTP_GET),
      3: optional('tcpSocket', TCP_SOCKET),
      4: optional('grpc', message('GRPCAction', { 1: int('port'), 2: optStr('service') })),
    }),
  ),
  2: int('initialDelaySeconds'),
  3: int('timeoutSeconds'),
  4: int('periodSeconds'),
  5: int('successThreshold'),
  6: int('failureThreshold'),
  7: optLong('terminationGracePeriodSeconds'),
});

const LIFECYCLE_HANDLER = message('LifecycleHandler', {
  1: optional('exec', EXEC),
  2: optional('httpGet', HTTP_GET),
  3: optional('tcpSocket', TCP_SOCKET),
  4: optional('sleep', message('SleepAction', { 1: one('seconds', 'int64') })),
});
const LIFECYCLE = message('Lifecycle', {
  1: optional('postStart', LIFECYCLE_HANDLER),
  2: optional('preStop', LIFECYCLE_HANDLER),
  3: optStr('stopSignal'),
});

const SE_LINUX = message('SELinuxOptions', {
  1: str('user'),
  2: str('role'),
  3: str('type'),
  4: str('level'),
});
const SECCOMP = message('SeccompProfile', { 1: str('type'), 2: optStr('localhostProfile') });
const APP_ARMOR = message('AppArmorProfile', { 1: str('type'), 2: optStr('localhostProfile') });

const SECURITY_CONTEXT = message('SecurityContext', {
  1: optional('capabilities', message('Capabilities', { 1: strings('add'), 2: strings('drop') })),
  2: optBool('privileged'),
  3: optional('seLinuxOptions', SE_LINUX),
  4: optLong('runAsUser'),
  5: optBool('runAsNonRoot'),
  6: optBool('readOnlyRootFilesystem'),
  7: optBool('allowPrivilegeEscalation'),
  8: optLong('runAsGroup'),
  9: optStr('procMount'),
  11: optional('seccompProfile', SECCOMP),
  12: optional('appArmorProfile', APP_ARMOR),
});

const CONTAINER = message('Container', {
  1: str('name'),
  2: str('image'),
  3: strings('command'),
  4: strings('args'),
  5: str('workingDir'),
  6: list('ports', CONTAINER_PORT),
  7: list('env', ENV_VAR),
  8: one('resources', RESOURCES),
  9: list(
    'volumeMounts',
    message('VolumeMount', {
      1: str('name'),
      2: bool('readOnly'),
      3: str('mountPath'),
      4: str('subPath'),
      5: optStr('mountPropagation'),
      6: str('subPathExpr'),
      7: optStr('recursiveReadOnly'),
    }),
  ),
  10: optional('livenessProbe', PROBE),
  11: optional('readinessProbe', PROBE),
  12: optional('lifecycle', LIFECYCLE),
  13: str('terminationMessagePath'),
  14: str('imagePullPolicy'),
  15: optional('securityContext', SECURITY_CONTEXT),
  16: bool('stdin'),
  17: bool('stdinOnce'),
  18: bool('tty'),
  19: list('envFrom', ENV_FROM),
  20: str('terminationMessagePolicy'),
  21: list('volumeDevices', message('VolumeDevice', { 1: str('name'), 2: str('devicePath') })),
  22: optional('startupProbe', PROBE),
  23: list(
    'resizePolicy',
    message('ContainerResizePolicy', { 1: str('resourceName'), 2: str('restartPolicy') }),
  ),
  24: optStr('restartPolicy'),
});

const KEY_TO_PATH = message('KeyToPath', { 1: str('key'), 2: str('path'), 3: optInt('mode') });
const DOWNWARD_FILE = message('DownwardAPIVolumeFile', {
  1: str('path'),
  2: optional('fieldRef', FIELD_REF),
  3: optional('resourceFieldRef', RESOURCE_FIELD_REF),
  4: optInt('mode'),
});
const OBJECT_PROJECTION = message('Projection', {
  1: inline(LOCAL_OBJECT_REFERENCE),
  2: list('items', KEY_TO_PATH),
  4: optBool('optional'),
});

const VOLUME_SOURCE = message('VolumeSource', {
  1: optional('hostPath', message('HostPathVolumeSource', { 1: str('path'), 2: optStr('type') })),
  2: optional(
    'emptyDir',
    message('EmptyDirVolumeSource', { 1: str('medium'), 2: optional('sizeLimit', QUANTITY) }),
  ),
  6: optional(
    'secret',
    message('SecretVolumeSource', {
      1: str('secretName'),
      2: list('items', KEY_TO_PATH),
      3: optInt('defaultMode'),
      4: optBool('optional'),
    }),
  ),
  7: optional(
    'nfs',
    message('NFSVolumeSource', { 1: str('server'), 2: str('path'), 3: bool('readOnly') }),
  ),
  10: optional(
    'persistentVolumeClaim',
    message('PersistentVolumeClaimVolumeSource', { 1: str('claimName'), 2: bool('readOnly') }),
  ),
  16: optional(
    'downwardAPI',
    message('DownwardAPIVolumeSource', {
      1: list('items', DOWNWARD_FILE),
      2: optInt('defaultMode'),
    }),
  ),
  19: optional(
    'configMap',
    message('ConfigMapVolumeSource', {
      1: inline(LOCAL_OBJECT_REFERENCE),
      2: list('items', KEY_TO_PATH),
      3: optInt('defaultMode'),
      4: optBool('optional'),
    }),
  ),
  26: optional(
    'projected',
    message('ProjectedVolumeSource', {
      1: list(
        'sources',
        message('VolumeProjection', {
          1: optional('secret', OBJECT_PROJECTION),
          2: optional(
            'downwardAPI',
            message('DownwardAPIProjection', { 1: list('items', DOWNWARD_FILE) }),
          ),
          3: optional('configMap', OBJECT_PROJECTION),
          4: optional(
            'serviceAccountToken',
            message('ServiceAccountTokenProjection', {
              1: str('audience'),
              2: optLong('expirationSeconds'),
              3: str('path'),
            }),
          ),
        }),
      ),
      2: optInt('defaultMode'),
    }),
  ),
});

const POD_SECURITY_CONTEXT = message('PodSecurityContext', {
  1: optional('seLinuxOptions', SE_LINUX),
  2: optLong('runAsUser'),
  3: optBool('runAsNonRoot'),
  4: list('supplementalGroups', 'int64'),
  5: optLong('fsGroup'),
  6: optLong('runAsGroup'),
  7: list('sysctls', message('Sysctl', { 1: str('name'), 2: str('value') })),
  9: optStr('fsGroupChangePolicy'),
  10: optional('seccompProfile', SECCOMP),
  11: optional('appArmorProfile', APP_ARMOR),
  12: optStr('supplementalGroupsPolicy'),
  13: optStr('seLinuxChangePolicy'),
});

const POD_SPEC = message('PodSpec', {
  1: list('volumes', message('Volume', { 1: str('name'), 2: inline(VOLUME_SOURCE) })),
  2: list('containers', CONTAINER),
  3: str('restartPolicy'),
  4: optLong('terminationGracePeriodSeconds'),
  5: optLong('activeDeadlineSeconds'),
  6: str('dnsPolicy'),
  7: stringMap('nodeSelector'),
  8: str('serviceAccountName'),
  9: str('serviceAccount'),
  10: str('nodeName'),
  11: bool('hostNetwork'),
  12: bool('hostPID'),
  13: bool('hostIPC'),
  14: optional('securityContext', POD_SECURITY_CONTEXT),
  15: list('imagePullSecrets', LOCAL_OBJECT_REFERENCE),
  16: str('hostname'),
  17: str('subdomain'),
  19: str('schedulerName'),
  20: list('initContainers', CONTAINER),
  21: optBool('automountServiceAccountToken'),
  22: list(
    'tolerations',
    message('Toleration', {
      1: str('key'),
      2: str('operator'),
      3: str('value'),
      4: str('effect'),
      5: optLong('tolerationSeconds'),
    }),
  ),
  23: list('hostAliases', message('HostAlias', { 1: str('ip'), 2: strings('hostnames') })),
  24: str('priorityClassName'),
  25: optInt('priority'),
  26: optional(
    'dnsConfig',
    message('PodDNSConfig', {
      1: strings('nameservers'),
      2: strings('searches'),
      3: list('options', message('PodDNSConfigOption', { 1: str('name'), 2: optStr('value') })),
    }),
  ),
  27: optBool('shareProcessNamespace'),
  28: list('readinessGates', message('PodReadinessGate', { 1: str('conditionType') })),
  29: optStr('runtimeClassName'),
  30: optBool('enableServiceLinks'),
  31: optStr('preemptionPolicy'),
  32: map('overhead', QUANTITY),
  35: optBool('setHostnameAsFQDN'),
  36: optional('os', message('PodOS', { 1: str('name') })),
  37: optBool('hostUsers'),
  38: list('schedulingGates', message('PodSchedulingGate', { 1: str('name') })),
  40: optional('resources', RESOURCES),
  41: optStr('hostnameOverride'),
});

const CONTAINER_STATE = message('ContainerState', {
  1: optional('waiting', message('ContainerStateWaiting', { 1: str('reason'), 2: str('message') })),
  2: optional('running', message('ContainerStateRunning', { 1: one('startedAt', TIME) })),
  3: optional(
    'terminated',
    message('ContainerStateTerminated', {
      1: optInt('exitCode'),
      2: int('signal'),
      3: str('reason'),
      4: str('message'),
      5: one('startedAt', TIME),
      6: one('finishedAt', TIME),
      7: str('containerID'),
    }),
  ),
});

const CONTAINER_STATUS = message('ContainerStatus', {
  1: str('name'),
  2: one('state', CONTAINER_STATE),
  3: one('lastState', CONTAINER_STATE),
  4: optBool('ready'),
  5: optInt('restartCount'),
  6: optStr('image'),
  7: optStr('imageID'),
  8: str('containerID'),
  9: optBool('started'),
});

const ADDRESS = message('PodIP', { 1: str('ip') });

const POD_STATUS = message('PodStatus', {
  1: str('phase'),
  2: list(
    'conditions',
    message('PodCondition', {
      1: str('type'),
      2: str('status'),
      3: one('lastProbeTime', TIME),
      4: one('lastTransitionTime', TIME),
      5: str('reason'),
      6: str('message'),
      7: one('observedGeneration', 'int64'),
    }),
  ),
  3: str('message'),
  4: str('reason'),
  5: str('hostIP'),
  6: str('podIP'),
  7: optional('startTime', TIME),
  8: list('containerStatuses', CONTAINER_STATUS),
  9: str('qosClass'),
  10: list('initContainerStatuses', CONTAINER_STATUS),
  11: str('nominatedNodeName'),
  12: list('podIPs', ADDRESS),
  13: list('ephemeralContainerStatuses', CONTAINER_STATUS),
  14: str('resize'),
  16: list('hostIPs', ADDRESS),
  17: one('observedGeneration', 'int64'),
});

export const POD_MESSAGE = kindMessage('Pod', {
  2: one('spec', POD_SPEC),
  3: one('status', POD_STATUS),
});
