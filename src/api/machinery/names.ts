/**
 * The forms of names in Kubernetes objects: RFC 1123 labels and subdomains, RFC 1035 labels, label keys and values,
 * IANA service names. `k8s.io/apimachinery/pkg/util/validation`.
 *
 * Each check returns `undefined` for a good name, and otherwise what is allowed, in upstream's words.
 */

/** RFC 1123 section 2.1 and RFC 1035 section 2.3.4. */
export const MAX_DNS_LABEL_LENGTH = 63;
/** RFC 1035 section 3.1: 255 bytes on the wire, less the first length byte and the root. */
export const MAX_DNS_SUBDOMAIN_LENGTH = 253;
/** Chosen by Kubernetes so that a label value can hold a DNS label. */
export const MAX_LABEL_VALUE_LENGTH = 63;
/** RFC 6335 section 5.1. */
const MAX_IANA_SERVICE_NAME_LENGTH = 15;
/** The part of a label key behind its prefix. */
const MAX_QUALIFIED_NAME_LENGTH = 63;

const DNS1123_LABEL = '[a-z0-9]([-a-z0-9]*[a-z0-9])?';
const DNS1123_LABEL_PATTERN = new RegExp(`^${DNS1123_LABEL}$`);
const DNS1123_SUBDOMAIN_PATTERN = new RegExp(`^${DNS1123_LABEL}(\\.${DNS1123_LABEL})*$`);
const DNS1123_LABEL_WITH_UNDERSCORE = '[a-z0-9_]([-_a-z0-9]*[a-z0-9])?';
const DNS1123_SUBDOMAIN_WITH_UNDERSCORE_PATTERN = new RegExp(
  `^${DNS1123_LABEL_WITH_UNDERSCORE}(\\.${DNS1123_LABEL_WITH_UNDERSCORE})*$`,
);
const DNS1035_LABEL_PATTERN = /^[a-z]([-a-z0-9]*[a-z0-9])?$/;
const QUALIFIED_NAME_PATTERN = /^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$/;
const LABEL_VALUE_PATTERN = /^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$/;

/** Namespaces, and most names that become a part of a DNS name. */
export function checkDns1123Label(text: string): string | undefined {
  return (
    checkLength(text, MAX_DNS_LABEL_LENGTH) ??
    (DNS1123_LABEL_PATTERN.test(text)
      ? undefined
      : "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and " +
        "end with an alphanumeric character (e.g. 'my-name', or '123-abc', regex used for validation is " +
        `'${DNS1123_LABEL}')`)
  );
}

/** Names of nodes, pods and most other objects. */
export function checkDns1123Subdomain(text: string): string | undefined {
  return (
    checkLength(text, MAX_DNS_SUBDOMAIN_LENGTH) ??
    (DNS1123_SUBDOMAIN_PATTERN.test(text)
      ? undefined
      : "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must " +
        "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is " +
        `'${DNS1123_LABEL}(\\.${DNS1123_LABEL})*')`)
  );
}

/** Domains that resolvers look names up in: there, labels like `_tcp` stand too. */
export function checkDns1123SubdomainWithUnderscore(text: string): string | undefined {
  return (
    checkLength(text, MAX_DNS_SUBDOMAIN_LENGTH) ??
    (DNS1123_SUBDOMAIN_WITH_UNDERSCORE_PATTERN.test(text)
      ? undefined
      : "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must " +
        "start and end with an alphanumeric character (e.g. 'example.com')")
  );
}

/** Names of services. */
export function checkDns1035Label(text: string): string | undefined {
  return (
    checkLength(text, MAX_DNS_LABEL_LENGTH) ??
    (DNS1035_LABEL_PATTERN.test(text)
      ? undefined
      : "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic " +
        "character, and end with an alphanumeric character (e.g. 'my-name', or 'abc-123', regex used for " +
        "validation is '[a-z]([-a-z0-9]*[a-z0-9])?')")
  );
}

/** Keys of labels and annotations: an optional DNS subdomain and `/`, then a name. */
export function checkQualifiedName(text: string): string | undefined {
  const slash = text.indexOf('/');
  const name = slash < 0 ? text : text.slice(slash + 1);
  if (slash >= 0) {
    const prefix = text.slice(0, slash);
    if (name.includes('/'))
      return `a qualified name must consist of a name with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')`;
    if (prefix === '') return 'prefix part must be non-empty';
    const wrong = checkDns1123Subdomain(prefix);
    if (wrong !== undefined) return `prefix part ${wrong}`;
  }
  if (name === '') return 'name part must be non-empty';
  if (name.length > MAX_QUALIFIED_NAME_LENGTH)
    return `name part must be no more than ${MAX_QUALIFIED_NAME_LENGTH} bytes`;
  if (!QUALIFIED_NAME_PATTERN.test(name))
    return (
      "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an " +
      "alphanumeric character (e.g. 'MyName', or 'my.name', or '123-abc')"
    );
  return undefined;
}

export function checkLabelValue(text: string): string | undefined {
  return (
    checkLength(text, MAX_LABEL_VALUE_LENGTH) ??
    (LABEL_VALUE_PATTERN.test(text)
      ? undefined
      : "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must " +
        "start and end with an alphanumeric character (e.g. 'MyValue', or 'my_value', or '12345')")
  );
}

/** Names of container ports, and `targetPort` as a name. RFC 6335 section 5.1, lower case only. */
export function checkIanaServiceName(text: string): string | undefined {
  const long = checkLength(text, MAX_IANA_SERVICE_NAME_LENGTH);
  if (long !== undefined) return long;
  if (!/^[-a-z0-9]*$/.test(text) || text === '')
    return 'must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)';
  if (!/[a-z]/.test(text)) return 'must contain at least one letter (a-z)';
  if (text.includes('--')) return 'must not contain consecutive hyphens';
  if (text.startsWith('-') || text.endsWith('-')) return 'must not begin or end with a hyphen';
  return undefined;
}

/** A host name of which the first label may be `*`: any one label. */
export function checkWildcardDns1123Subdomain(text: string): string | undefined {
  return (
    checkLength(text, MAX_DNS_SUBDOMAIN_LENGTH) ??
    (text.startsWith('*.') && DNS1123_SUBDOMAIN_PATTERN.test(text.slice(2))
      ? undefined
      : "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of " +
        "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com')")
  );
}

/** A name with two labels or more; the dot of the root may end it. */
export function checkFullyQualifiedDomainName(text: string): string | undefined {
  const name = text.replace(/\.$/, '');
  return (
    checkDns1123Subdomain(name) ??
    (name.includes('.')
      ? undefined
      : 'should be a domain with at least two segments separated by dots')
  );
}

/** What can stand in a URL as it is. Names of roles and bindings are no DNS names: `system:node`. */
export function checkPathSegmentName(name: string): string | undefined {
  if (name === '.' || name === '..') return `may not be '${name}'`;
  for (const wrong of ['/', '%']) if (name.includes(wrong)) return `may not contain '${wrong}'`;
  return undefined;
}

/** Keys of ConfigMaps and Secrets: a file name. */
export function checkConfigMapKey(text: string): string | undefined {
  const long = checkLength(text, MAX_DNS_SUBDOMAIN_LENGTH);
  if (long !== undefined) return long;
  if (!/^[-._a-zA-Z0-9]+$/.test(text))
    return "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
  if (text === '.' || text === '..') return `must not be '${text}'`;
  if (text.startsWith('..')) return "must not start with '..'";
  return undefined;
}

/** A port of TCP, UDP or SCTP. */
export function checkPortNumber(port: unknown): string | undefined {
  return Number.isInteger(port) && Number(port) >= 1 && Number(port) <= 65535
    ? undefined
    : 'must be between 1 and 65535, inclusive';
}

/** A port by its number, or by the name that a container gives it. */
export function checkPortNumberOrName(port: number | string): string | undefined {
  return typeof port === 'string' ? checkIanaServiceName(port) : checkPortNumber(port);
}

function checkLength(text: string, max: number): string | undefined {
  return text.length > max ? `must be no more than ${max} bytes` : undefined;
}
