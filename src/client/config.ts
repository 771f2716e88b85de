/** What a client must know to reach and to trust a Kubernetes API server. Made by `kubeconfig.ts` or by hand. */

export interface ClientConfig {
  /** Base URLs (`https://192.0.2.1:6443`), at least one. They are tried in turn when one cannot be reached. */
  readonly servers: readonly string[];
  /** PEM of the authorities that may vouch for the server. Without it the system's are trusted. */
  readonly caPem?: string;
  /** PEM of the client's certificate, leaf first, and of its key: both or none. */
  readonly certificatePem?: string;
  readonly keyPem?: string;
  /** A bearer token. `tokenFile` wins over it. */
  readonly token?: string;
  /** A file with a bearer token that something else renews: it is read again when it changes. */
  readonly tokenFile?: string;
  /** The name the server's certificate must have, if not the one in the URL. */
  readonly tlsServerName?: string;
  /** Trust any server. Only ever set because a person wrote so in a kubeconfig. */
  readonly insecureSkipTlsVerify?: boolean;
  /** The namespace that commands mean when they name none. */
  readonly namespace?: string;
  /** Limit for the headers of an answer, and again for its body if it is not a watch's. */
  readonly requestTimeoutMs?: number;
  readonly userAgent?: string;
}
