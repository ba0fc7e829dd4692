// examples.mjs: what providers show in their documentation, as it stands there.
//
// Answers are sent to the first person who connects, byte by byte; {{now}} stands
// where the original has a time that would long be over, {{access}} where it does not
// say.  Requests are compared by
// the names of their parameters and the way the client authenticates; code_verifier
// may be added where PKCE is.
const gitlab = 'https://docs.gitlab.com/api/oauth2/ (gitlabhq/gitlabhq doc/api/oauth2.md, 04b8ef1)';
const discord = 'discord/discord-api-docs developers/topics/oauth2.mdx, 2602eff';
const x = 'xdevplatform/docs fundamentals/authentication/oauth-2-0/user-access-token.mdx, 1f5173f';
const etsy = 'https://developers.etsy.com/documentation/essentials/authentication/';
const selling = 'amzn/selling-partner-api-docs guides/en-US/developer-guide/SellingPartnerApiDeveloperGuide.md, 1aeba81';
const bigcommerce = 'bigcommerce/docs docs/integrations/apps/guide/auth.mdx, 15352a8';

export const examples = {
  gitlab: {
    exchange: { source: gitlab, way: 'post', parameters: ['client_id', 'client_secret', 'code', 'grant_type', 'redirect_uri'] },
    answer: {
      source: gitlab,
      access: 'de6780bc506a0446309bd9362820ba8aed28aa506c71eedbe1c5c4f9dd350e54', refresh: '8257e65c97202ed1726cf9571600918f3bffb2544b26e00a61df9897668c33a1',
      body: `{
 "access_token": "de6780bc506a0446309bd9362820ba8aed28aa506c71eedbe1c5c4f9dd350e54",
 "token_type": "bearer",
 "expires_in": 7200,
 "refresh_token": "8257e65c97202ed1726cf9571600918f3bffb2544b26e00a61df9897668c33a1",
 "created_at": {{now}}
}`,
    },
    refresh: { source: gitlab, way: 'post', parameters: ['client_id', 'client_secret', 'refresh_token', 'grant_type', 'redirect_uri'] },
    renewed: {
      source: gitlab,
      access: 'c97d1fe52119f38c7f67f0a14db68d60caa35ddc86fd12401718b649dcfa9c68', refresh: '803c1fd487fec35562c205dac93e9d8e08f9d3652a24079d704df3039df1158f',
      body: `{
  "access_token": "c97d1fe52119f38c7f67f0a14db68d60caa35ddc86fd12401718b649dcfa9c68",
  "token_type": "bearer",
  "expires_in": 7200,
  "refresh_token": "803c1fd487fec35562c205dac93e9d8e08f9d3652a24079d704df3039df1158f",
  "created_at": {{now}}
}`,
    },
  },
  discord: {
    exchange: { source: discord, way: 'basic', parameters: ['grant_type', 'code', 'redirect_uri'] },
    answer: {
      source: discord, access: '6qrZcUqja7812RVdnEKjpzOL4CvHBFG', refresh: 'D43f5y0ahjqew82jZ4NViEr2YafMKhue',
      body: `{
  "access_token": "6qrZcUqja7812RVdnEKjpzOL4CvHBFG",
  "token_type": "Bearer",
  "expires_in": 604800,
  "refresh_token": "D43f5y0ahjqew82jZ4NViEr2YafMKhue",
  "scope": "identify"
}`,
    },
    refresh: { source: discord, way: 'basic', parameters: ['grant_type', 'refresh_token'] },
  },
  twitter_x: {
    exchange: { source: x, way: 'basic', parameters: ['code', 'grant_type', 'redirect_uri', 'code_verifier'] },
    refresh: { source: x, way: 'basic', parameters: ['refresh_token', 'grant_type'] },
  },
  etsy: {
    exchange: { source: etsy, way: 'none', parameters: ['grant_type', 'client_id', 'redirect_uri', 'code', 'code_verifier'] },
    answer: {
      source: etsy,
      access: '12345678.O1zLuwveeKjpIqCQFfmR-PaMMpBmagH6DljRAkK9qt05OtRKiANJOyZlMx3WQ_o2FdComQGuoiAWy3dxyGI4Ke_76PR',
      refresh: '12345678.JNGIJtvLmwfDMhlYoOJl8aLR1BWottyHC6yhNcET-eC7RogSR5e1GTIXGrgrelWZalvh3YvvyLfKYYqvymd-u37Sjtx',
      body: `{
    "access_token": "12345678.O1zLuwveeKjpIqCQFfmR-PaMMpBmagH6DljRAkK9qt05OtRKiANJOyZlMx3WQ_o2FdComQGuoiAWy3dxyGI4Ke_76PR",
    "token_type": "Bearer",
    "expires_in": 3600,
    "refresh_token": "12345678.JNGIJtvLmwfDMhlYoOJl8aLR1BWottyHC6yhNcET-eC7RogSR5e1GTIXGrgrelWZalvh3YvvyLfKYYqvymd-u37Sjtx"
}`,
    },
  },
  amazon_sp_api: {
    // The answer to a refresh is shown, with the refresh token that was sent: the code
    // brings that one, beside an access token of its own.
    answer: {
      source: selling, refresh: 'Atzr|IQEBLzAtAhRPpMJxdwVz2Nn6f2y-tpJX2DeXEXAMPLE',
      body: `{
  "access_token":"{{access}}",
  "token_type":"bearer",
  "expires_in":3600,
  "refresh_token":"Atzr|IQEBLzAtAhRPpMJxdwVz2Nn6f2y-tpJX2DeXEXAMPLE"
}`,
    },
    refresh: { source: selling, way: 'post', parameters: ['grant_type', 'refresh_token', 'client_id', 'client_secret'] },
    renewed: {
      source: selling, access: 'Atza|IQEBLjAsAhRmHjNgHpi0U-Dme37rR6CuUpSREXAMPLE',
      body: `{
  "access_token":"Atza|IQEBLjAsAhRmHjNgHpi0U-Dme37rR6CuUpSREXAMPLE",
  "token_type":"bearer",
  "expires_in":3600,
  "refresh_token":"Atzr|IQEBLzAtAhRPpMJxdwVz2Nn6f2y-tpJX2DeXEXAMPLE"
}`,
    },
  },
  bigcommerce: {
    callback: {
      source: bigcommerce,
      query: 'account_uuid=12345678-90ab-cdef-1234-567890abcdef&code=qr6h3thvbvag2ffq&context=stores%2Fg5cd38&scope=store_v2_orders+store_channel_listings_read_only',
    },
    exchange: {
      source: bigcommerce, way: 'post', parameters: ['client_id', 'client_secret', 'code', 'context', 'scope', 'grant_type', 'redirect_uri'],
    },
    answer: {
      source: bigcommerce, access: 'xxxxalphanumstringxxxx',
      body: `{
  "access_token": "xxxxalphanumstringxxxx",
  "scope": "store_v2_orders store_channel_listings_read_only",
  "user": {
    "id": 24654,
    "username": "merchant@example.com",
    "email": "merchant@example.com"
  },
  "owner": {
    "id": 12345,
    "username": "owner@example.com",
    "email": "owner@example.com"
  },
  "context": "stores/g5cd38",
  "account_uuid": "12345678-90ab-cdef-1234-567890abcdef"
}`,
    },
  },
};
