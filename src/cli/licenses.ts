declare const RUNLOCK_LICENSES: string;

/** The licences of all that was bundled, as the build found them. */
export const licenses = RUNLOCK_LICENSES;
