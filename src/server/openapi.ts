/** The documents under `/openapi/v3`, encoded once: they are large and never change while the server runs. */
import type { KindDefinition } from '#api/kind.ts';
import { openApiDocuments, openApiHash, openApiIndex } from '#api/machinery/openapi.ts';

export interface OpenApiDocuments {
  /** Answer of `/openapi/v3`. */
  readonly index: object;
  /** By the path after `/openapi/v3/`. */
  readonly documents: ReadonlyMap<string, { readonly text: string; readonly hash: string }>;
}

/** @param version of the product, for people */
export function createOpenApiDocuments(
  kinds: readonly KindDefinition[],
  version: string,
): OpenApiDocuments {
  const documents = openApiDocuments(kinds, { version });
  return {
    index: openApiIndex(documents),
    documents: new Map(
      [...documents].map(([path, document]) => [
        path,
        { text: JSON.stringify(document), hash: openApiHash(document) },
      ]),
    ),
  };
}
