// ends: error LimitExceeded json_depth
let o = 1;
for (let n = 0; n < 200; n++) o = [o];
return o;
