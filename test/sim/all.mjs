// all.mjs: the descriptions, as servers.  One that begins from another says what differs.
import { Provider } from './engine.mjs';
import accounting from './providers/accounting.mjs';
import commerce from './providers/commerce.mjs';
import crm from './providers/crm.mjs';
import developer from './providers/developer.mjs';
import google from './providers/google.mjs';
import identity from './providers/identity.mjs';
import meta from './providers/meta.mjs';
import social from './providers/social.mjs';
import work from './providers/work.mjs';

export const providers = [accounting, commerce, crm, developer, google, identity, meta, social, work]
  .flat().map((description) => new Provider(description));
