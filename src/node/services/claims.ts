interface Claimed {
  /** `frontendKey` */
  readonly key: string;
}

/**
 * Who has a frontend. The API keeps cluster IPs and node ports apart, but nobody keeps external IPs apart, and while
 * objects change hands an address may stand in two for a moment. The oldest service has it, whatever the order of news.
 */
export class Claims {
  /** One claimant as its name, several as a list with the owner first: nearly all have one. */
  readonly #claims = new Map<string, string | readonly string[]>();
  readonly #contested = new Set<string>();
  readonly #ageOf: (service: string) => string;

  /** @param ageOf sorts claimants: the least is the owner */
  constructor(ageOf: (service: string) => string) {
    this.#ageOf = ageOf;
  }

  ownerOf(frontend: string): string | undefined {
    const claim = this.#claims.get(frontend);
    return typeof claim === 'string' ? claim : claim?.[0];
  }

  /** A service gives up what it has and takes what it wants now. */
  replace(service: string, before: readonly Claimed[], after: readonly Claimed[]): void {
    for (const { key: frontend } of before)
      if (!after.some(({ key }) => key === frontend))
        this.#set(
          frontend,
          this.#claimants(frontend).filter((other) => other !== service),
        );
    for (const { key: frontend } of after) {
      const claim = this.#claims.get(frontend);
      if (claim === undefined) this.#claims.set(frontend, service);
      else if (claim !== service)
        this.#set(frontend, [...this.#claimants(frontend).filter((it) => it !== service), service]);
    }
  }

  get hasConflicts(): boolean {
    return this.#contested.size > 0;
  }

  conflicts(): { frontend: string; owner: string; others: string }[] {
    return [...this.#contested].map((frontend) => {
      const [owner = '', ...others] = this.#claimants(frontend);
      return { frontend, owner, others: others.join(', ') };
    });
  }

  #claimants(frontend: string): readonly string[] {
    const claim = this.#claims.get(frontend);
    return typeof claim === 'string' ? [claim] : (claim ?? []);
  }

  #set(frontend: string, claimants: readonly string[]): void {
    const [only] = claimants;
    this.#contested.delete(frontend);
    if (only === undefined) this.#claims.delete(frontend);
    else if (claimants.length === 1) this.#claims.set(frontend, only);
    else {
      const byAge = claimants
        .map((service) => ({ service, age: this.#ageOf(service) }))
        .sort((a, b) => (a.age < b.age ? -1 : 1));
      this.#claims.set(
        frontend,
        byAge.map(({ service }) => service),
      );
      this.#contested.add(frontend);
    }
  }
}
