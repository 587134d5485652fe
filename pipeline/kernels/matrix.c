#include <stdint.h>
#include <stddef.h>
/* c = a * b, n by n */
void matrix_multiply(uint64_t*c,const uint64_t*a,const uint64_t*b,size_t n){
 for(size_t i=0;i<n;i++)for(size_t j=0;j<n;j++){uint64_t s=0;for(size_t k=0;k<n;k++)s+=a[i*n+k]*b[k*n+j];c[i*n+j]=s;}
}
